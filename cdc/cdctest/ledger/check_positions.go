package ledger

import (
	"sort"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// checkPositions: positions never go back, name the row that stands there, and
// end with the last record (I7).
func (c *checker) checkPositions() {
	last := c.Positions[0]
	rowsBefore := 0
	for _, position := range c.Positions {
		if position.Position().Compare(last.Position()) < 0 || position.RecordedLSN < last.RecordedLSN && position.Generation == last.Generation {
			c.report.add(PositionOrder, "offset %d has position %s recorded %s after %s recorded %s",
				position.Offset, position.Position(), position.RecordedLSN, last.Position(), last.RecordedLSN)
		}
		last = position
		if position.LastRow == nil {
			continue
		}
		at, ok := c.places[position.LastRow.EventID]
		if !ok || int(position.LastRow.Serial) != at.row+1 || position.LastRow.XID != c.Committed[at.transaction].XID {
			c.report.add(PositionRow, "offset %d names event %s as row %d of transaction %d", position.Offset, position.LastRow.EventID, position.LastRow.Serial, position.LastRow.XID)
			continue
		}
		if at.order+1 > rowsBefore {
			rowsBefore = at.order + 1
			c.report.Batches++
		}
	}
	var newest *Record
	for i := range c.Seen {
		if newest == nil || c.Seen[i].Position.Compare(newest.Position) > 0 {
			newest = &c.Seen[i]
		}
	}
	switch {
	case newest == nil && last.LastRow != nil:
		c.report.add(PositionAhead, "the last position is %s, but no record was seen", last.Position())
	case newest == nil:
	case last.Position().Compare(newest.Position) > 0:
		c.report.add(PositionAhead, "the last position is %s, but the newest record has %s", last.Position(), newest.Position)
	case last.Position().Compare(newest.Position) < 0:
		c.report.add(PositionBehind, "the newest record has %s (event %s), but the last position is %s", newest.Position, newest.ID, last.Position())
	}
}

// checkCuts: a batch ends inside a database transaction only if that one alone
// exceeds the limits, and its record says so (I8).
func (c *checker) checkCuts() {
	for _, position := range c.Positions {
		if position.LastRow == nil {
			continue
		}
		at, ok := c.places[position.LastRow.EventID]
		if !ok {
			continue
		}
		rows := len(c.Committed[at.transaction].Events)
		switch ends := at.row == rows-1; {
		case !ends && position.Complete:
			c.report.add(TornTransaction, "offset %d calls transaction %d complete at row %d of %d", position.Offset, c.Committed[at.transaction].XID, at.row+1, rows)
		case !position.Complete && rows < c.MayCutRows:
			c.report.add(TornTransaction, "offset %d cuts transaction %d, which has only %d rows, at row %d", position.Offset, c.Committed[at.transaction].XID, rows, at.row+1)
		}
	}
}

// checkBatches: the rows that one position record covers, and no others, were
// in one Kafka transaction (I8). In a partition the markers of a producer delimit
// its transactions; across partitions the producer and its epoch have to agree.
func (c *checker) checkBatches() {
	ends := c.batchEnds()
	producers := map[int]*Record{} // the first record of each batch
	for partition, records := range c.byPartition(c.Seen) {
		var last *Record
		lastBatch := 0
		for _, record := range records {
			if !c.first[record.id()] {
				continue
			}
			_, at := c.event(record)
			batch := sort.SearchInts(ends, at.order)
			if last != nil && (batch == lastBatch) != sameTransaction(last, record) {
				c.report.add(KafkaTransaction, "events %s and %s of partition %d: batches %d and %d by the position records, Kafka transactions %d of producer %d and %d of producer %d",
					last.ID, record.ID, partition, lastBatch, batch, last.KafkaTransaction, last.ProducerID, record.KafkaTransaction, record.ProducerID)
			}
			last, lastBatch = record, batch
			if first := producers[batch]; first == nil {
				producers[batch] = record
			} else if first.ProducerID != record.ProducerID || first.ProducerEpoch != record.ProducerEpoch {
				c.report.add(KafkaTransaction, "events %s and %s of batch %d were written by producer %d with epoch %d and by producer %d with epoch %d",
					first.ID, record.ID, batch, first.ProducerID, first.ProducerEpoch, record.ProducerID, record.ProducerEpoch)
			}
		}
	}
}

// sameTransaction is about two records of one partition.
func sameTransaction(a, b *Record) bool {
	return a.ProducerID == b.ProducerID && a.KafkaTransaction == b.KafkaTransaction
}

// batchEnds returns the orders of the rows that end a batch, rising.
func (c *checker) batchEnds() []int {
	var ends []int
	for _, position := range c.Positions {
		if position.LastRow == nil {
			continue
		}
		at, ok := c.places[position.LastRow.EventID]
		if ok && (len(ends) == 0 || at.order > ends[len(ends)-1]) {
			ends = append(ends, at.order)
		}
	}
	return ends
}

// checkAcks: the slot is never told more than Kafka had recorded by then (I9).
func (c *checker) checkAcks() {
	for _, sample := range c.Acks {
		var recorded cdc.LSN
		for _, position := range c.Positions {
			if position.Offset >= sample.EndOffset {
				break
			}
			recorded = max(recorded, position.RecordedLSN)
		}
		if sample.ConfirmedLSN > recorded {
			c.report.add(AckAhead, "the slot had %s confirmed while Kafka had %s recorded", sample.ConfirmedLSN, recorded)
		}
	}
}
