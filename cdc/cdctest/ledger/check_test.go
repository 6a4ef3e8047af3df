package ledger

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	testPartitions = 3
	testKeys       = 4
	testMayCut     = 6
)

// drawHistory makes the history of a correct relay. The first transaction is
// never cut and has more rows than there are partitions, so that there always
// are two rows of one batch, partition and Kafka transaction; and there are more
// rows than keys.
func drawHistory(t *rapid.T) History {
	h := History{Partitions: testPartitions, MayCutRows: testMayCut}
	numbers := map[string]int64{}
	lsn := cdc.LSN(0x1000)
	for tx := range rapid.IntRange(4, 12).Draw(t, "transactions") {
		rows := rapid.IntRange(2, 8).Draw(t, "rows")
		if tx == 0 {
			rows = testPartitions + 1
		}
		lsn += cdc.LSN(rapid.IntRange(100, 5000).Draw(t, "wal bytes"))
		transaction := Transaction{XID: cdc.XID(700 + tx), EndLSN: lsn}
		for row := range rows {
			key := fmt.Sprintf("k%d", rapid.IntRange(0, testKeys-1).Draw(t, "key"))
			numbers[key]++
			transaction.Events = append(transaction.Events, Event{ID: fmt.Sprintf("e%d.%d", tx, row+1), Key: key, Seq: numbers[key]})
		}
		h.Committed = append(h.Committed, transaction)
	}
	relay := newModelRelay(&h)
	relay.ring = rapid.IntRange(1, 3).Draw(t, "ring")
	relay.late = func() bool { return rapid.Bool().Draw(t, "late markers") }
	for i, transaction := range h.Committed {
		cut := 0
		if len(transaction.Events) >= testMayCut && rapid.Bool().Draw(t, "cut") {
			relay.commit(i-1, true)
			cut = rapid.IntRange(1, len(transaction.Events)-1).Draw(t, "cut at")
			relay.produce(i, 0, cut)
			relay.commit(i, false)
		}
		relay.produce(i, cut, len(transaction.Events))
		if rapid.Bool().Draw(t, "commit boundary") || i == len(h.Committed)-1 {
			relay.commit(i, true)
		}
	}
	h.Dump = slices.Clone(h.Seen)
	return h
}

// modelRelay writes the logs that an exact relay would write.
type modelRelay struct {
	h       *History
	offsets [testPartitions]int64
	// ring is the number of producers, which take turns. The marker of one may be
	// written only when it is its turn again.
	ring    int
	turn    int
	late    func() bool
	markers [testPartitions]map[int64]int
	touched [testPartitions]map[int64]bool
	last    cdc.LastRow
	covered cdc.Position
	end     cdc.LSN
}

func newModelRelay(h *History) *modelRelay {
	genesis := &cdc.PositionRecord{Generation: 1, Complete: true, RecordedLSN: 0x800}
	h.Positions = []PositionRecord{{Offset: 0, PositionRecord: genesis}}
	h.Acks = []AckSample{{ConfirmedLSN: 0x800, EndOffset: 2}}
	m := &modelRelay{h: h, end: 0x800}
	for p := range testPartitions {
		m.markers[p], m.touched[p] = map[int64]int{}, map[int64]bool{}
	}
	return m
}

func (m *modelRelay) producerID() int64 { return int64(1 + m.turn%m.ring) }

// mark writes the markers of a producer that are due.
func (m *modelRelay) mark(producerID int64) {
	for p := range testPartitions {
		if m.touched[p][producerID] {
			m.offsets[p]++
			m.markers[p][producerID]++
			m.touched[p][producerID] = false
		}
	}
}

func (m *modelRelay) produce(tx, from, to int) {
	transaction := m.h.Committed[tx]
	for row := from; row < to; row++ {
		event := transaction.Events[row]
		p := cdc.PartitionFor([]byte(event.Key), testPartitions)
		m.last = cdc.LastRow{CommitLSN: transaction.EndLSN - 40, Serial: uint32(row + 1), EventID: event.ID, XID: transaction.XID}
		m.h.Seen = append(m.h.Seen, Record{
			Partition: p, Offset: m.offsets[p], ID: event.ID, Key: event.Key, Seq: event.Seq, Tag: tagCommitted,
			Position:         cdc.Position{Generation: 1, CommitLSN: m.last.CommitLSN, Serial: m.last.Serial},
			KafkaTransaction: m.markers[p][m.producerID()], ProducerID: m.producerID(), ProducerEpoch: int16(len(m.h.Positions)),
		})
		m.offsets[p]++
		m.touched[p][m.producerID()] = true
	}
}

func (m *modelRelay) commit(tx int, complete bool) {
	position := cdc.Position{CommitLSN: m.last.CommitLSN, Serial: m.last.Serial}
	if position == m.covered {
		return
	}
	m.covered = position
	if complete {
		m.end = m.h.Committed[tx].EndLSN
	}
	if !m.late() {
		m.mark(m.producerID())
	}
	m.turn++
	m.mark(m.producerID()) // it could not begin before
	last := m.last
	offset := int64(2 * len(m.h.Positions))
	m.h.Positions = append(m.h.Positions, PositionRecord{Offset: offset, PositionRecord: &cdc.PositionRecord{
		Generation: 1, Complete: complete, RecordedLSN: m.end, LastRow: &last,
	}})
	m.h.Acks = append(m.h.Acks, AckSample{ConfirmedLSN: m.end, EndOffset: offset + 2})
}

func TestCheckAcceptsTheHistoryOfAnExactRelay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		report := Check(drawHistory(t))
		if err := report.Err(); err != nil {
			t.Fatal(err)
		}
		if report.Rows == 0 || report.Records != report.Rows || report.Batches == 0 {
			t.Fatalf("nothing was checked: %s", &report)
		}
	})
}

// anyOf passes over a history that happens to have none of what is asked for:
// rapid draws another, and fails when almost none has one.
func anyOf[T any](t *rapid.T, found []T) T {
	if len(found) == 0 {
		t.Skip("none is there")
	}
	return rapid.SampledFrom(found).Draw(t, "which")
}

// sharing returns two records, one after the other, for which same holds.
func sharing(t *rapid.T, h *History, same func(a, b *Record) bool) (int, int) {
	var pairs [][2]int
	for i := range h.Seen {
		for j := i + 1; j < len(h.Seen); j++ {
			if same(&h.Seen[i], &h.Seen[j]) {
				pairs = append(pairs, [2]int{i, j})
			}
		}
	}
	pair := anyOf(t, pairs)
	return pair[0], pair[1]
}

// neighbours returns two records that follow each other in their partition.
func neighbours(t *rapid.T, h *History, with func(a, b *Record) bool) (int, int) {
	var pairs [][2]int
	last := map[int32]int{}
	for j := range h.Seen {
		if i, ok := last[h.Seen[j].Partition]; ok && with(&h.Seen[i], &h.Seen[j]) {
			pairs = append(pairs, [2]int{i, j})
		}
		last[h.Seen[j].Partition] = j
	}
	pair := anyOf(t, pairs)
	return pair[0], pair[1]
}

func anyRecord(t *rapid.T, h *History) int {
	return rapid.IntRange(0, len(h.Seen)-1).Draw(t, "record")
}

func samePartition(a, b *Record) bool { return a.Partition == b.Partition }
func sameKey(a, b *Record) bool       { return a.Key == b.Key }

// swapContents exchanges two records in their places in the log.
func swapContents(a, b *Record) {
	a.ID, b.ID = b.ID, a.ID
	a.Key, b.Key = b.Key, a.Key
	a.Seq, b.Seq = b.Seq, a.Seq
	a.Position, b.Position = b.Position, a.Position
	a.Digest, b.Digest = b.Digest, a.Digest
}

// anyBatch returns the index of a position record that covers rows.
func anyBatch(t *rapid.T, h *History) int {
	return rapid.IntRange(1, len(h.Positions)-1).Draw(t, "batch")
}

func edit(h *History, i int, change func(*cdc.PositionRecord)) {
	record := *h.Positions[i].PositionRecord
	change(&record)
	h.Positions[i].PositionRecord = &record
}

// mutation breaks a history in a way that Check has to name.
type mutation struct {
	name  string
	want  Kind
	apply func(t *rapid.T, h *History)
}

// mutations break one thing each; want is what the report must then name.
var mutations = []mutation{
	{"a record is missing", Loss, func(t *rapid.T, h *History) {
		i := anyRecord(t, h)
		h.Seen = slices.Delete(h.Seen, i, i+1)
	}},
	{"a record in the middle of a partition is missing", Prefix, func(t *rapid.T, h *History) {
		i, _ := sharing(t, h, samePartition)
		h.Seen = slices.Delete(h.Seen, i, i+1)
	}},
	{"a record appears twice", Duplicate, func(t *rapid.T, h *History) {
		again := h.Seen[anyRecord(t, h)]
		again.Offset += 1_000_000
		h.Seen = append(h.Seen, again)
	}},
	{"a rolled-back row appears", Phantom, func(t *rapid.T, h *History) {
		phantom := h.Seen[anyRecord(t, h)]
		phantom.ID, phantom.Tag, phantom.Offset = "rolled-back", tagRolledBack, phantom.Offset+1_000_000
		h.Seen = append(h.Seen, phantom)
	}},
	{"the value of another row", WrongContent, func(t *rapid.T, h *History) {
		h.Seen[anyRecord(t, h)].Seq += 1000
	}},
	{"a row tagged for rolling back was committed", WrongContent, func(t *rapid.T, h *History) {
		h.Seen[anyRecord(t, h)].Tag = tagRolledBack
	}},
	{"two records of a partition are swapped", PartitionOrder, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, samePartition)
		swapContents(&h.Seen[i], &h.Seen[j])
	}},
	{"swapped records show a partition that is no prefix", Prefix, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, samePartition)
		swapContents(&h.Seen[i], &h.Seen[j])
	}},
	{"two records of a key are swapped", KeyOrder, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, sameKey)
		swapContents(&h.Seen[i], &h.Seen[j])
	}},
	{"a key in the wrong partition", KeyPlacement, func(t *rapid.T, h *History) {
		i := anyRecord(t, h)
		h.Seen[i].Partition = (h.Seen[i].Partition + 1) % testPartitions
		h.Seen[i].Offset += 1_000_000
	}},
	{"headers exchanged", HeaderOrder, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, samePartition)
		h.Seen[i].Position, h.Seen[j].Position = h.Seen[j].Position, h.Seen[i].Position
	}},
	{"a header names the wrong serial", HeaderMismatch, func(t *rapid.T, h *History) {
		h.Seen[anyRecord(t, h)].Position.Serial++
	}},
	{"a header names the end LSN", HeaderMismatch, func(t *rapid.T, h *History) {
		h.Seen[anyRecord(t, h)].Position.CommitLSN += 40
	}},
	{"a position goes back", PositionOrder, func(t *rapid.T, h *History) {
		i := anyBatch(t, h)
		again := h.Positions[i-1]
		again.Offset = h.Positions[len(h.Positions)-1].Offset + 2
		h.Positions = append(h.Positions, again)
	}},
	{"the recorded LSN falls", PositionOrder, func(t *rapid.T, h *History) {
		edit(h, anyBatch(t, h), func(r *cdc.PositionRecord) { r.RecordedLSN = 1 })
	}},
	{"a position names another event", PositionRow, func(t *rapid.T, h *History) {
		edit(h, anyBatch(t, h), func(r *cdc.PositionRecord) {
			other := *r.LastRow
			other.XID++
			r.LastRow = &other
		})
	}},
	{"the position is ahead of the records", PositionAhead, func(t *rapid.T, h *History) {
		h.Seen = h.Seen[:len(h.Seen)-1]
	}},
	{"the position is behind the records", PositionBehind, func(t *rapid.T, h *History) {
		h.Positions = h.Positions[:len(h.Positions)-1]
	}},
	{"a transaction called complete in its middle", TornTransaction, func(t *rapid.T, h *History) {
		edit(h, len(h.Positions)-1, func(r *cdc.PositionRecord) {
			transaction := h.Committed[len(h.Committed)-1]
			row := *r.LastRow
			row.Serial, row.EventID = 1, transaction.Events[0].ID
			r.LastRow = &row
		})
	}},
	{"a transaction that fits is cut", TornTransaction, func(t *rapid.T, h *History) {
		h.MayCutRows = 100
		transaction := h.Committed[0]
		row := cdc.LastRow{CommitLSN: transaction.EndLSN - 40, Serial: 1, EventID: transaction.Events[0].ID, XID: transaction.XID}
		cut := PositionRecord{Offset: 1, PositionRecord: &cdc.PositionRecord{Generation: 1, RecordedLSN: 0x800, LastRow: &row}}
		h.Positions = slices.Insert(h.Positions, 1, cut)
	}},
	{"records of one batch in two Kafka transactions", KafkaTransaction, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, func(a, b *Record) bool { return samePartition(a, b) && sameTransaction(a, b) })
		partition := h.Seen[i].Partition
		for ; j < len(h.Seen); j++ {
			if h.Seen[j].Partition == partition {
				h.Seen[j].KafkaTransaction++
			}
		}
	}},
	{"records of two batches in one Kafka transaction", KafkaTransaction, func(t *rapid.T, h *History) {
		i, j := neighbours(t, h, sameTransaction)
		covers := slices.IndexFunc(h.Positions, func(p PositionRecord) bool {
			return p.LastRow != nil && p.Position().Compare(h.Seen[j].Position) >= 0
		})
		row := cdc.LastRow{CommitLSN: h.Seen[i].Position.CommitLSN, Serial: h.Seen[i].Position.Serial, EventID: h.Seen[i].ID}
		between := PositionRecord{Offset: h.Positions[covers].Offset - 1, PositionRecord: &cdc.PositionRecord{Generation: 1, LastRow: &row}}
		h.Positions = slices.Insert(h.Positions, covers, between)
	}},
	{"records of one batch in one partition by two producers", KafkaTransaction, func(t *rapid.T, h *History) {
		_, j := neighbours(t, h, sameTransaction)
		h.Seen[j].ProducerID += 100
	}},
	{"records of one batch in two partitions by two producers", KafkaTransaction, func(t *rapid.T, h *History) {
		_, j := sharing(t, h, func(a, b *Record) bool { return !samePartition(a, b) && a.ProducerEpoch == b.ProducerEpoch })
		at := h.Seen[j]
		for k := range h.Seen {
			if h.Seen[k].Partition == at.Partition && h.Seen[k].ProducerEpoch == at.ProducerEpoch {
				h.Seen[k].ProducerID += 100
			}
		}
	}},
	{"a fenced producer writes after its successor", EpochBack, func(t *rapid.T, h *History) {
		i, j := sharing(t, h, func(a, b *Record) bool { return samePartition(a, b) && a.ProducerID == b.ProducerID })
		h.Seen[i].ProducerEpoch = h.Seen[j].ProducerEpoch + 1
	}},
	{"the slot is told more than Kafka has", AckAhead, func(t *rapid.T, h *History) {
		i := rapid.IntRange(0, len(h.Acks)-1).Draw(t, "sample")
		h.Acks[i].ConfirmedLSN++
	}},
	{"a later reader sees less", UnstableRead, func(t *rapid.T, h *History) {
		h.Dump = h.Dump[:len(h.Dump)-1]
	}},
	{"a later reader sees another event", UnstableRead, func(t *rapid.T, h *History) {
		h.Dump[anyRecord(t, h)].ID = "other"
	}},
}

func TestCheckNamesWhatIsBroken(t *testing.T) { checkNames(t, mutations, drawHistory) }

// checkNames breaks drawn histories by each of the mutations.
func checkNames(t *testing.T, mutations []mutation, draw func(*rapid.T) History) {
	t.Helper()
	for _, mutation := range mutations {
		t.Run(mutation.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := draw(t)
				mutation.apply(t, &h)
				if report := Check(h); report.Count(mutation.want) == 0 {
					t.Fatalf("no %s in: %s", mutation.want, &report)
				}
			})
		})
	}
}

func TestEveryKindOfViolationIsProvoked(t *testing.T) {
	provoked := map[Kind]bool{}
	for _, mutation := range mutations {
		provoked[mutation.want] = true
	}
	for _, mutation := range repeatMutations {
		provoked[mutation.want] = true
	}
	for _, kind := range kinds {
		if !provoked[kind] {
			t.Errorf("no mutation provokes %s", kind)
		}
	}
}
