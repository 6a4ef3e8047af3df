package ledger

import (
	"slices"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Check compares what was seen with what was committed. It is pure.
func Check(history History) Report {
	c := newChecker(history)
	c.checkPresence()
	for partition, records := range c.byPartition(c.Seen) {
		c.checkPartition(int32(partition), records)
	}
	c.checkKeys()
	if c.AtLeastOnce {
		c.checkRepeats()
		c.checkAcksOfRows()
	} else if len(c.Positions) > 0 {
		c.checkPositions()
		c.checkCuts()
		c.checkBatches()
		c.checkAcks()
	}
	if c.Dump != nil {
		c.checkDump()
	}
	return c.report
}

// place is where a committed row stands.
type place struct {
	transaction int // index in Committed
	row         int // index in its Events
	order       int // index in S, the sequence of all committed rows
}

type checker struct {
	History
	report Report
	places map[string]place // by event id
	// first has the records whose event was seen there for the first time; only
	// they take part in checks of order, so that a duplicate counts once.
	first map[recordID]bool
}

type recordID struct {
	partition int32
	offset    int64
}

func (r *Record) id() recordID { return recordID{r.Partition, r.Offset} }

func newChecker(history History) *checker {
	c := &checker{History: history, places: map[string]place{}, first: map[recordID]bool{}}
	order := 0
	for t, transaction := range c.Committed {
		for row, event := range transaction.Events {
			c.places[event.ID] = place{transaction: t, row: row, order: order}
			order++
		}
	}
	c.report.Transactions, c.report.Rows, c.report.Records = len(c.Committed), order, len(c.Seen)
	return c
}

// event returns the committed row of a record; nil for a phantom.
func (c *checker) event(record *Record) (*Event, place) {
	p, ok := c.places[record.ID]
	if !ok {
		return nil, place{}
	}
	return &c.Committed[p.transaction].Events[p.row], p
}

// byPartition returns pointers to the records of each partition, in the order
// in which they were seen.
func (c *checker) byPartition(records []Record) [][]*Record {
	byPartition := make([][]*Record, c.Partitions)
	for i := range records {
		partition := records[i].Partition
		for int(partition) >= len(byPartition) {
			byPartition = append(byPartition, nil)
		}
		byPartition[partition] = append(byPartition[partition], &records[i])
	}
	return byPartition
}

// checkPresence: every committed row once, and nothing else (I1, I2, I3). At
// least once, repeats are for checkRepeats.
func (c *checker) checkPresence() {
	seen := make(map[string]*Record, len(c.Seen))
	for i := range c.Seen {
		record := &c.Seen[i]
		event, _ := c.event(record)
		if event == nil {
			c.report.add(Phantom, "event %s (%s) at %d/%d was never committed", record.ID, record.Tag, record.Partition, record.Offset)
			continue
		}
		if earlier, ok := seen[record.ID]; ok {
			if c.report.Repeats++; c.AtLeastOnce {
				continue
			}
			c.report.add(Duplicate, "event %s at %d/%d and again at %d/%d", record.ID, earlier.Partition, earlier.Offset, record.Partition, record.Offset)
			continue
		}
		seen[record.ID] = record
		c.first[record.id()] = true
		if record.Key != event.Key || record.Seq != event.Seq || record.Tag != tagCommitted {
			c.report.add(WrongContent, "event %s at %d/%d has key %s number %d tag %q, committed was key %s number %d",
				record.ID, record.Partition, record.Offset, record.Key, record.Seq, record.Tag, event.Key, event.Seq)
		}
	}
	for _, transaction := range c.Committed {
		for i, event := range transaction.Events {
			if seen[event.ID] == nil {
				c.report.add(Loss, "event %s, row %d of transaction %d ending at %s", event.ID, i+1, transaction.XID, transaction.EndLSN)
			}
		}
	}
}

// checkPartition: what a partition shows is at every moment a prefix of its
// part of S, in the order of S (I4, I6), and the headers say the same (I7).
// The reader saw the offsets in order, so every moment is a prefix of records.
func (c *checker) checkPartition(partition int32, records []*Record) {
	expected := c.partOf(partition)
	lastOrder, index, torn := -1, 0, false
	var last *Record
	epochs := map[int64]int16{}
	for _, record := range records {
		if epoch, ok := epochs[record.ProducerID]; ok && record.ProducerEpoch < epoch {
			c.report.add(EpochBack, "%d/%d was written with epoch %d of producer %d after epoch %d", partition, record.Offset, record.ProducerEpoch, record.ProducerID, epoch)
		}
		epochs[record.ProducerID] = max(epochs[record.ProducerID], record.ProducerEpoch)
		if !c.first[record.id()] {
			continue
		}
		_, at := c.event(record)
		if at.order < lastOrder {
			c.report.add(PartitionOrder, "event %s at %d/%d was committed before the one seen before it", record.ID, partition, record.Offset)
		}
		lastOrder = max(lastOrder, at.order)
		if !torn && (index >= len(expected) || expected[index] != record.ID) {
			torn = true
			c.report.add(Prefix, "partition %d showed event %s at offset %d as its row %d, which is not the next one of its part", partition, record.ID, record.Offset, index+1)
		}
		index++
		if last != nil && record.Position.Compare(last.Position) <= 0 {
			c.report.add(HeaderOrder, "header %s at %d/%d after %s", record.Position.Header(), partition, record.Offset, last.Position.Header())
		}
		last = record
		c.checkHeader(record, at)
	}
}

// partOf returns the ids of the rows that belong to the partition, in order.
func (c *checker) partOf(partition int32) []string {
	var ids []string
	for _, transaction := range c.Committed {
		for _, event := range transaction.Events {
			if cdc.PartitionFor([]byte(event.Key), c.Partitions) == partition {
				ids = append(ids, event.ID)
			}
		}
	}
	return ids
}

// checkHeader: the commit record of a transaction lies between the ends of its
// predecessor and its own, and the serial counts its rows.
func (c *checker) checkHeader(record *Record, at place) {
	var after cdc.LSN
	if at.transaction > 0 {
		after = c.Committed[at.transaction-1].EndLSN
	}
	end := c.Committed[at.transaction].EndLSN
	commit := record.Position.CommitLSN
	if int(record.Position.Serial) != at.row+1 || commit < after || end != 0 && commit >= end {
		c.report.add(HeaderMismatch, "header %s of event %s, which is row %d of the transaction that ends at %s",
			record.Position.Header(), record.ID, at.row+1, end)
	}
}

// checkKeys: a key stays in its partition and its numbers rise (I5).
func (c *checker) checkKeys() {
	numbers := map[string]int64{}
	for i := range c.Seen {
		record := &c.Seen[i]
		if !c.first[record.id()] {
			continue
		}
		if want := cdc.PartitionFor([]byte(record.Key), c.Partitions); record.Partition != want {
			c.report.add(KeyPlacement, "key %s in partition %d at offset %d, belongs into %d", record.Key, record.Partition, record.Offset, want)
		}
		if record.Seq <= numbers[record.Key] {
			c.report.add(KeyOrder, "key %s number %d at %d/%d after number %d", record.Key, record.Seq, record.Partition, record.Offset, numbers[record.Key])
		}
		numbers[record.Key] = max(numbers[record.Key], record.Seq)
	}
}

// checkDump: a reader that starts later sees the same records.
func (c *checker) checkDump() {
	dump := c.byPartition(c.Dump)
	for partition, seen := range c.byPartition(c.Seen) {
		var later []*Record
		if partition < len(dump) {
			later = dump[partition]
		}
		same := slices.EqualFunc(seen, later, func(a, b *Record) bool { return a.Offset == b.Offset && a.ID == b.ID })
		if !same {
			c.report.add(UnstableRead, "partition %d showed %d records while the faults happened and %d others or in another order later", partition, len(seen), len(later))
		}
	}
}
