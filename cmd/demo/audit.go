package main

import (
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// partitions is the partition count of the topic.
const partitions = 6

// committedRow is an outbox row of a committed transaction, as the table and
// the test_decoding slot tell it.
type committedRow struct {
	eventID   string
	paymentID string // from the payload: what a record is matched by
	key       string
	readAt    time.Time // when it was read from the slot, after its commit
}

// seenRecord is a record as a read_committed consumer got it.
type seenRecord struct {
	partition int32
	offset    int64
	eventID   string // header ce_id
	paymentID string // from the value
	key       string
}

// verdict is the judgement about rows and records.
type verdict struct {
	Committed  int `json:"committed"`
	Delivered  int `json:"delivered"` // different committed rows seen in Kafka
	OnTheWay   int `json:"on_the_way"`
	Missing    int `json:"missing"`
	Duplicate  int `json:"duplicate"`
	OutOfOrder int `json:"out_of_order"`
	Phantom    int `json:"phantom"` // records of what was never committed
	Wrong      int `json:"wrong"`   // records with another event id, key or partition than their row's

	examples []string
}

// maxExamples bounds what a verdict shows: the first cases tell most.
const maxExamples = 8

func (v *verdict) found(count *int, format string, args ...any) {
	*count++
	if len(v.examples) < maxExamples {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// exact says whether nothing is wrong; rows may be on their way.
func (v *verdict) exact() bool {
	return v.Missing+v.Duplicate+v.OutOfOrder+v.Phantom+v.Wrong == 0
}

// judge compares rows in commit order with records in the order in which the
// consumer got them. A row that was not seen is on its way if it was read after
// lateBefore and no later row of its partition has overtaken it; otherwise it is
// missing. It is pure.
func judge(committed []committedRow, seen []seenRecord, lateBefore time.Time) verdict {
	v := verdict{Committed: len(committed)}
	order := make(map[string]int, len(committed))
	for i, row := range committed {
		order[row.paymentID] = i
	}
	delivered := make([]bool, len(committed))
	last := map[int32]int{} // by partition: the latest row seen, plus one
	for _, record := range seen {
		at := fmt.Sprintf("[%d]@%d", record.partition, record.offset)
		i, ok := order[record.paymentID]
		switch {
		case !ok:
			v.found(&v.Phantom, "phantom: payment %s at %s was never committed", record.paymentID, at)
			continue
		case delivered[i]:
			v.found(&v.Duplicate, "duplicate: payment %s again at %s", record.paymentID, at)
			continue
		case i < last[record.partition]:
			v.found(&v.OutOfOrder, "out of order: payment %s at %s was committed before the one seen before it", record.paymentID, at)
		}
		delivered[i] = true
		v.Delivered++
		last[record.partition] = max(last[record.partition], i+1)
		row := committed[i]
		if record.key != row.key || record.eventID != row.eventID || record.partition != cdc.PartitionFor([]byte(row.key), partitions) {
			v.found(&v.Wrong, "wrong: payment %s at %s has key %s and event id %s, its row %s and %s", record.paymentID, at, record.key, record.eventID, row.key, row.eventID)
		}
	}
	for i, row := range committed {
		overtaken := i < last[cdc.PartitionFor([]byte(row.key), partitions)]
		switch {
		case delivered[i]:
		case overtaken || row.readAt.Before(lateBefore):
			v.found(&v.Missing, "missing: payment %s of reservation %s, event %s", row.paymentID, row.key, row.eventID)
		default:
			v.OnTheWay++
		}
	}
	return v
}
