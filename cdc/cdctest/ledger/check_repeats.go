package ledger

import (
	"cmp"
	"slices"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// In mode at-least-once a row may be seen again, and no position record tells
// anything. What still has to hold: all rows are there, nothing else is, and of
// each partition the first appearances are at every moment a prefix of its part
// of S, in that order. For a producer sends a row only after the rows before it
// are in the log or were acknowledged to the slot; so a late request, or a
// replica that lost the slot, can only repeat.

// producerLife is what one producer wrote. A relay that starts again, for
// whatever reason, has another producer id.
type producerLife struct {
	rows   map[string]*Record
	begins map[int32]int64 // its first offset, by partition
	lowest cdc.LSN         // the smallest commit LSN among its rows
}

// checkRepeats: a repeat equals the first appearance byte by byte, in the same
// partition. A life repeats no row of its own, and none that was acknowledged
// before the life wrote anything. So a row is seen at most once per life, and a
// restart repeats at most what was not acknowledged then.
func (c *checker) checkRepeats() {
	firsts := map[string]*Record{}
	lives := map[int64]*producerLife{}
	for i := range c.Seen {
		record := &c.Seen[i]
		if event, _ := c.event(record); event == nil {
			continue
		}
		first, repeated := firsts[record.ID]
		if !repeated {
			firsts[record.ID] = record
		} else if first.Digest != record.Digest || first.Partition != record.Partition {
			c.report.add(RepeatDiffers, "event %s at %d/%d and, with other bytes or elsewhere, at %d/%d", record.ID, first.Partition, first.Offset, record.Partition, record.Offset)
		}
		life := lives[record.ProducerID]
		if life == nil {
			life = &producerLife{rows: map[string]*Record{}, begins: map[int32]int64{}, lowest: record.Position.CommitLSN}
			lives[record.ProducerID] = life
		}
		if earlier, ok := life.rows[record.ID]; ok {
			c.report.add(RepeatInLife, "event %s at %d/%d and again at %d/%d by the same producer %d", record.ID, earlier.Partition, earlier.Offset, record.Partition, record.Offset, record.ProducerID)
		}
		life.note(record)
	}
	if c.SlotFellBack {
		return
	}
	for id, life := range lives {
		c.checkLifeBegin(id, life)
	}
}

func (l *producerLife) note(record *Record) {
	l.rows[record.ID] = record
	if begin, ok := l.begins[record.Partition]; !ok || record.Offset < begin {
		l.begins[record.Partition] = record.Offset
	}
	l.lowest = min(l.lowest, record.Position.CommitLSN)
}

// checkLifeBegin: as long as a life has written nothing, the slot cannot have
// been acknowledged past its first row; before, it stood where the life began.
func (c *checker) checkLifeBegin(id int64, life *producerLife) {
	for _, sample := range c.Acks {
		if life.wroteBefore(sample) {
			continue
		}
		if life.lowest < sample.ConfirmedLSN {
			c.report.add(RepeatAcknowledged, "producer %d wrote a row of the commit at %s, although the slot had %s confirmed before it wrote anything", id, life.lowest, sample.ConfirmedLSN)
			return
		}
	}
}

func (l *producerLife) wroteBefore(sample AckSample) bool {
	for partition, begin := range l.begins {
		if int(partition) >= len(sample.EndOffsets) || begin < sample.EndOffsets[partition] {
			return true
		}
	}
	return false
}

// checkAcksOfRows: when the slot was told an LSN, the rows of all transactions
// that end at or before it were in the topic.
func (c *checker) checkAcksOfRows() {
	firsts := map[string]*Record{}
	for i := range c.Seen {
		if record := &c.Seen[i]; c.first[record.id()] {
			firsts[record.ID] = record
		}
	}
	samples := slices.Clone(c.Acks)
	slices.SortStableFunc(samples, func(a, b AckSample) int { return cmp.Compare(a.ConfirmedLSN, b.ConfirmedLSN) })
	covered := 0                  // transactions that end at or before the sample's LSN
	latest := map[int32]*Record{} // of their rows the one with the highest offset, by partition
	for _, sample := range samples {
		for ; covered < len(c.Committed) && c.Committed[covered].EndLSN <= sample.ConfirmedLSN; covered++ {
			for _, event := range c.Committed[covered].Events {
				// What was never seen is a loss, and told as one.
				if record := firsts[event.ID]; record != nil && (latest[record.Partition] == nil || latest[record.Partition].Offset < record.Offset) {
					latest[record.Partition] = record
				}
			}
		}
		for partition, record := range latest {
			if int(partition) < len(sample.EndOffsets) && record.Offset >= sample.EndOffsets[partition] {
				c.report.add(AckAhead, "the slot had %s confirmed while event %s, now at %d/%d, was not in Kafka", sample.ConfirmedLSN, record.ID, partition, record.Offset)
			}
		}
	}
}
