package cdc

import "time"

// BatchLimits bound one Kafka transaction, and with it the relay's memory: at
// most two batches exist at a time.
type BatchLimits struct {
	MaxRows       int // default 10000
	MaxBytes      int // default 4 MiB; a single larger record makes a batch of its own
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
	// OldestCommit is the commit time of the first record's transaction.
	OldestCommit time.Time
	// CommitTimes has the commit time of each record's transaction.
	CommitTimes []time.Time
}

// assembly gathers rows into the next batch and remembers where it may end.
// It is pure, and never holds more than the limits allow: the caller asks fits
// before append, and cuts first when the answer is no.
type assembly struct {
	limits      BatchLimits
	records     []Record
	commitTimes []time.Time
	bytes       int
	partitions  map[partitionKey]struct{}
	last        rowMark // of the last appended record; serial 0: none since the last cut
	// boundary is the state at the last COMMIT; boundary.records of the records
	// belong to complete transactions.
	boundary boundary
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
	return assembly{limits: limits, partitions: make(map[partitionKey]struct{})}
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

func (a *assembly) append(record Record, mark rowMark) {
	a.records = append(a.records, record)
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
// inside the open transaction. What remains starts the next batch. The returned
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
	*a = newAssembly(a.limits)
	for i := range rest {
		mark := last
		mark.commitTime = restTimes[i]
		a.append(rest[i], mark)
	}
	return batch, end
}
