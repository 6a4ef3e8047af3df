package audit

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// positionChecks has the newest position header of each partition.
type positionChecks map[place]string

// checkPosition compares the position header with the one before it in the
// partition. Headers of one relay compare as text.
func (r *run) checkPosition(record *Record) {
	value, ok := headerOf(record.Headers, headerPosition)
	if !ok {
		return
	}
	at := place{record.Topic, record.Partition}
	before, position := r.checked[at], string(value)
	r.report.Order.PositionsChecked++
	if position <= before {
		r.report.found(&r.report.Order.PositionsBackwards, KindPosition, Example{
			Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
			Text: fmt.Sprintf("position %s comes behind %s", position, before),
		})
		return
	}
	r.checked[at] = position
}

// checkOrder walks the rows that were found by key, in the order of offsets.
func (r *run) checkOrder() error {
	sorted, err := r.order.sorted()
	if err != nil {
		return err
	}
	var before, latest orderEntry // latest has the largest commit timestamp so far
	started := false
	for {
		encoded, err := sorted.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e := decodeOrderEntry(encoded)
		if !started || e.key != before.key || e.topic != before.topic || e.partition != before.partition {
			before, latest, started = e, e, true
			continue
		}
		r.checkPair(before, latest, e)
		if e.commit > latest.commit {
			latest = e
		}
		before = e
	}
}

// checkPair judges e, which stands behind the other two of its key.
func (r *run) checkPair(before, latest, e orderEntry) {
	broken := func(other orderEntry, why string) {
		r.report.found(&r.report.OutOfOrder, KindOutOfOrder, Example{
			EventID: e.id, Topic: r.topics.list[e.topic].topic, Partition: e.partition, Offset: e.offset,
			Text: fmt.Sprintf("stands behind %s at offset %d, %s", other.id, other.offset, why),
		})
	}
	if e.xid == before.xid && e.xid != 0 {
		r.report.Order.PairsChecked++
		if e.command < before.command {
			broken(before, fmt.Sprintf("which a later command of the same transaction %d inserted", e.xid))
		}
		return
	}
	if e.commit == 0 || latest.commit == 0 {
		r.report.Order.PairsUnknown++
		return
	}
	r.report.Order.PairsChecked++
	if gap := time.Duration(latest.commit-e.commit) * time.Microsecond; gap > r.cfg.OrderTolerance {
		broken(latest, fmt.Sprintf("which was committed %s later", gap))
	}
}
