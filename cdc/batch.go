package cdc

import "time"

// BatchLimits bound one Kafka transaction, and with it the relay's memory: at
// most two batches exist at a time.
type BatchLimits struct {
	MaxRows       int // default 2000
	MaxBytes      int // default 1 MiB; a single larger record makes a batch of its own
	MaxPartitions int // default 500; each touched partition costs a commit marker
}

// Halved returns the limits for the start after a transaction timed out.
func (l BatchLimits) Halved() BatchLimits {
	return BatchLimits{MaxRows: max(1, l.MaxRows/2), MaxBytes: max(64<<10, l.MaxBytes/2), MaxPartitions: max(1, l.MaxPartitions/2)}
}

// doubled undoes Halved, up to the configured limits.
func (l BatchLimits) doubled(most BatchLimits) BatchLimits {
	return BatchLimits{
		MaxRows:       min(most.MaxRows, 2*l.MaxRows),
		MaxBytes:      min(most.MaxBytes, 2*l.MaxBytes),
		MaxPartitions: min(most.MaxPartitions, 2*l.MaxPartitions),
	}
}

// Batch is the content of one Kafka transaction: records in the order of the
// WAL, then the position record that makes them count. A batch without records
// records idle progress.
type Batch struct {
	Records []Record
	Bytes   int // of Records
	// Position is produced last, to the position topic, in the same transaction.
	Position *PositionRecord
	// Pins is the whole new set of topic pins; nil when it did not change.
	Pins []TopicPin
	// Command is what a person had done, told in the same transaction; nil in
	// every batch of a relay that runs.
	Command *CommandRecord
	// OldestCommit is the commit time of the first record's transaction.
	OldestCommit time.Time
	// CommitTimes has the commit time of each record's transaction.
	CommitTimes []time.Time
}

// assembly gathers rows into the next batch and remembers where it may end.
// It is pure, and never holds more than the limits allow: the caller asks fits
// before append, and cuts first when the answer is no.
type assembly struct {
	limits BatchLimits
	room
	bytes      int
	partitions map[partitionKey]struct{}
	last       rowMark // of the last appended record; serial 0: none since the last cut
	// boundary is the state at the last COMMIT; boundary.records of the records
	// belong to complete transactions.
	boundary boundary
	other    room // of the batch with the publisher, or free
}

// room is the memory of one batch. Two of them take turns: one is filled while
// the other is with the publisher, so that rows cost the collector nothing.
type room struct {
	records     []Record
	commitTimes []time.Time
	values      slab[byte]   // what the records reference
	headers     slab[Header] // of the records
}

const (
	roomChunkBytes   = 64 << 10
	roomChunkHeaders = 1024
)

func newRoom() room {
	return room{values: slab[byte]{perChunk: roomChunkBytes}, headers: slab[Header]{perChunk: roomChunkHeaders}}
}

// keep returns a record that references nothing but the room.
func (m *room) keep(record Record) Record {
	record.Placement = nil // it has been placed
	record.Key, record.Value = m.values.keep(record.Key), m.values.keep(record.Value)
	record.Headers = m.headers.keep(record.Headers)
	for i := range record.Headers {
		record.Headers[i].Value = m.values.keep(record.Headers[i].Value)
	}
	return record
}

// reset frees the room; what it held must be referenced no more.
func (m *room) reset() {
	clear(m.records)
	m.records, m.commitTimes = m.records[:0], m.commitTimes[:0]
	m.values.reset()
	m.headers.reset()
}

type boundary struct {
	records  int
	bytes    int
	last     rowMark // serial 0: no row before it in this assembly
	endLSN   LSN     // of the last complete transaction with rows; 0: none in this assembly
	complete bool    // a transaction was completed since the last cut, perhaps without further rows
}

// rowMark identifies a row as LastRow does, without a copy of its event id.
type rowMark struct {
	Position
	xid        XID
	commitTime time.Time
	eventID    []byte
}

func markOf(row *Row) rowMark {
	return rowMark{Position: row.Position, xid: row.XID, commitTime: row.CommitTime, eventID: row.EventID}
}

func (m rowMark) lastRow() *LastRow {
	return &LastRow{CommitLSN: m.CommitLSN, Serial: m.Serial, EventID: string(m.eventID), XID: m.xid, CommitTime: m.commitTime}
}

type partitionKey struct {
	topic     Topic
	partition int32
}

func newAssembly(limits BatchLimits) assembly {
	return assembly{limits: limits, partitions: make(map[partitionKey]struct{}), room: newRoom(), other: newRoom()}
}

// fits says whether the record may join the open batch. An empty batch takes
// any record, so that a single large one passes.
func (a *assembly) fits(record *Record) bool {
	if len(a.records) == 0 {
		return true
	}
	if len(a.records) >= a.limits.MaxRows || a.bytes+record.Bytes() > a.limits.MaxBytes {
		return false
	}
	_, touched := a.partitions[partitionKey{record.Topic, record.Partition}]
	return touched || len(a.partitions) < a.limits.MaxPartitions
}

// append takes the record in, and copies what it references.
func (a *assembly) append(record Record, mark rowMark) {
	mark.eventID = a.values.keep(mark.eventID)
	a.records = append(a.records, a.keep(record))
	a.commitTimes = append(a.commitTimes, mark.commitTime)
	a.bytes += record.Bytes()
	a.partitions[partitionKey{record.Topic, record.Partition}] = struct{}{}
	a.last = mark
}

// commit marks the end of a transaction that has rows of ours.
func (a *assembly) commit(endLSN LSN) {
	a.boundary = boundary{records: len(a.records), bytes: a.bytes, last: a.last, endLSN: endLSN, complete: true}
}

// ready says whether a batch could end at a COMMIT now.
func (a *assembly) ready() bool { return a.boundary.complete }

// cut takes the batch out: up to the last COMMIT where there is one, else
// inside the open transaction. What remains starts the next batch. The batch's
// memory is taken back by recycle, and there must be no other batch out. The returned
// boundary describes the batch's end; complete is false after a cut inside.
func (a *assembly) cut() (*Batch, boundary) {
	end := a.boundary
	if !end.complete {
		end = boundary{records: len(a.records), bytes: a.bytes, last: a.last}
	}
	batch := &Batch{Records: a.records[:end.records:end.records], CommitTimes: a.commitTimes[:end.records:end.records], Bytes: end.bytes}
	if len(batch.CommitTimes) > 0 {
		batch.OldestCommit = batch.CommitTimes[0]
	}
	rest, restTimes, last := a.records[end.records:], a.commitTimes[end.records:], a.last
	clear(a.partitions)
	*a = assembly{limits: a.limits, partitions: a.partitions, room: a.other, other: a.room}
	for i := range rest {
		mark := last
		mark.commitTime = restTimes[i]
		a.append(rest[i], mark)
	}
	return batch, end
}

// recycle takes back the memory of the batch that was cut: it was published, so
// Kafka's client holds nothing of it any more, and nobody else does.
func (a *assembly) recycle() { a.other.reset() }
