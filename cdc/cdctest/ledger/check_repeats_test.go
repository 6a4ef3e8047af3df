package ledger

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// repeater writes what relays in mode at-least-once would write: life after
// life, each from where the slot stands.
type repeater struct {
	h         *History
	offsets   [testPartitions]int64
	producer  int64
	confirmed int // transactions acknowledged to the slot
}

// drawRepeats makes the history of correct lives. The first one dies behind its
// first transaction without acknowledging it, so that there always are repeats.
func drawRepeats(t *rapid.T) History {
	h := History{Committed: drawHistory(t).Committed, Partitions: testPartitions, AtLeastOnce: true}
	r := &repeater{h: &h, producer: 1}
	r.sample()
	r.publish(0, len(h.Committed[0].Events))
	for r.confirmed < len(h.Committed) {
		r.producer++
		r.sample()
		deaths := len(h.Seen) < 1000 // enough is enough
		r.life(t, deaths)
	}
	h.Dump = slices.Clone(h.Seen)
	return h
}

// life publishes in order; it dies inside a transaction, or behind it.
func (r *repeater) life(t *rapid.T, mayDie bool) {
	for i := r.confirmed; i < len(r.h.Committed); i++ {
		rows := len(r.h.Committed[i].Events)
		if mayDie && rapid.IntRange(0, 5).Draw(t, "dies") == 0 {
			r.publish(i, rapid.IntRange(0, rows).Draw(t, "rows until then"))
			return
		}
		r.publish(i, rows)
		if rapid.Bool().Draw(t, "acknowledges") || i == len(r.h.Committed)-1 {
			r.confirmed = i + 1
			r.sample()
		}
	}
}

func (r *repeater) publish(tx, rows int) {
	transaction := r.h.Committed[tx]
	for row, event := range transaction.Events[:rows] {
		p := cdc.PartitionFor([]byte(event.Key), testPartitions)
		record := Record{
			Partition: p, Offset: r.offsets[p], ID: event.ID, Key: event.Key, Seq: event.Seq, Tag: tagCommitted,
			Position:   cdc.Position{Generation: 1, CommitLSN: transaction.EndLSN - 40, Serial: uint32(row + 1)},
			ProducerID: r.producer,
		}
		copy(record.Digest[:], event.ID)
		r.h.Seen = append(r.h.Seen, record)
		r.offsets[p]++
	}
}

func (r *repeater) sample() {
	lsn := cdc.LSN(0x800)
	if r.confirmed > 0 {
		lsn = r.h.Committed[r.confirmed-1].EndLSN
	}
	r.h.Acks = append(r.h.Acks, AckSample{ConfirmedLSN: lsn, EndOffsets: slices.Clone(r.offsets[:])})
}

func TestCheckAcceptsRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		report := Check(drawRepeats(t))
		if err := report.Err(); err != nil {
			t.Fatal(err)
		}
		if report.Repeats == 0 || report.Records != report.Rows+report.Repeats {
			t.Fatalf("no repeat was checked: %s", &report)
		}
	})
}

// appearances returns the places of the first appearances, or of the repeats.
func appearances(h *History, first bool) []int {
	seen, found := map[string]bool{}, []int(nil)
	for i := range h.Seen {
		if seen[h.Seen[i].ID] != first {
			found = append(found, i)
		}
		seen[h.Seen[i].ID] = true
	}
	return found
}

// firstPair returns two first appearances, one after the other, that share something.
func firstPair(t *rapid.T, h *History, same func(a, b *Record) bool) (a, b *Record) {
	var pairs [][2]*Record
	firsts := appearances(h, true)
	for n, i := range firsts {
		for _, j := range firsts[n+1:] {
			if same(&h.Seen[i], &h.Seen[j]) {
				pairs = append(pairs, [2]*Record{&h.Seen[i], &h.Seen[j]})
			}
		}
	}
	pair := anyOf(t, pairs)
	return pair[0], pair[1]
}

// later appends a record behind everything else of its partition.
func later(h *History, record Record) {
	record.Offset += 1_000_000
	h.Seen = append(h.Seen, record)
}

// repeatMutations break one thing each of a history with repeats.
var repeatMutations = []mutation{
	{"a row is missing with all its repeats", Loss, func(t *rapid.T, h *History) {
		id := h.Seen[anyRecord(t, h)].ID
		h.Seen = slices.DeleteFunc(h.Seen, func(r Record) bool { return r.ID == id })
	}},
	{"a rolled-back row appears", Phantom, func(t *rapid.T, h *History) {
		phantom := h.Seen[anyRecord(t, h)]
		phantom.ID, phantom.Tag = "rolled-back", tagRolledBack
		later(h, phantom)
	}},
	{"the value of another row", WrongContent, func(t *rapid.T, h *History) {
		h.Seen[anyOf(t, appearances(h, true))].Seq += 1000
	}},
	{"a repeat has other bytes", RepeatDiffers, func(t *rapid.T, h *History) {
		h.Seen[anyOf(t, appearances(h, false))].Digest[15]++
	}},
	{"a repeat is in another partition", RepeatDiffers, func(t *rapid.T, h *History) {
		i := anyOf(t, appearances(h, false))
		h.Seen[i].Partition = (h.Seen[i].Partition + 1) % testPartitions
		h.Seen[i].Offset += 1_000_000
	}},
	{"one life publishes a row twice", RepeatInLife, func(t *rapid.T, h *History) {
		later(h, h.Seen[anyRecord(t, h)])
	}},
	{"a life goes on before what was acknowledged", RepeatAcknowledged, func(t *rapid.T, h *History) {
		again := h.Seen[anyRecord(t, h)]
		again.ProducerID = 999
		later(h, again)
	}},
	{"first appearances of a partition are swapped", PartitionOrder, func(t *rapid.T, h *History) {
		swapContents(firstPair(t, h, samePartition))
	}},
	{"swapped first appearances are no prefix", Prefix, func(t *rapid.T, h *History) {
		swapContents(firstPair(t, h, samePartition))
	}},
	{"first appearances of a key are swapped", KeyOrder, func(t *rapid.T, h *History) {
		swapContents(firstPair(t, h, sameKey))
	}},
	{"headers of first appearances exchanged", HeaderOrder, func(t *rapid.T, h *History) {
		a, b := firstPair(t, h, samePartition)
		a.Position, b.Position = b.Position, a.Position
	}},
	{"a header names the wrong serial", HeaderMismatch, func(t *rapid.T, h *History) {
		h.Seen[anyOf(t, appearances(h, true))].Position.Serial++
	}},
	{"a key in the wrong partition", KeyPlacement, func(t *rapid.T, h *History) {
		i := anyOf(t, appearances(h, true))
		h.Seen[i].Partition = (h.Seen[i].Partition + 1) % testPartitions
		h.Seen[i].Offset += 1_000_000
	}},
	{"the slot is told more than Kafka has", AckAhead, func(t *rapid.T, h *History) {
		record := h.Seen[anyOf(t, appearances(h, true))]
		h.Acks[len(h.Acks)-1].EndOffsets[record.Partition] = record.Offset
	}},
	{"a later reader sees less", UnstableRead, func(t *rapid.T, h *History) {
		h.Dump = h.Dump[:len(h.Dump)-1]
	}},
}

func TestCheckNamesWhatIsBrokenAmongRepeats(t *testing.T) {
	checkNames(t, repeatMutations, drawRepeats)
}

// After a crash of Postgres the slot stands where it stood on disk: what was
// acknowledged is sent again, and that is no fault of the relay.
func TestCheckAllowsRepeatsAfterTheSlotFellBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawRepeats(t)
		again := h.Seen[anyRecord(t, &h)]
		again.ProducerID = 999
		later(&h, again)
		h.Dump, h.SlotFellBack = nil, true
		if report := Check(h); report.Err() != nil {
			t.Fatal(report.Err())
		}
	})
}
