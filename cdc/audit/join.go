package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// group is everything with one id.
type group struct {
	id      ID
	row     entry // kind 0: there is none
	first   entry // the record of the lowest topic, partition and offset; kind 0: there is none
	parked  bool
	records int64
}

// phantomsAtOnce is how many records without a row are looked up at a time.
const phantomsAtOnce = 1000

// join walks rows and records in the order of their ids.
func (r *run) join(ctx context.Context) error {
	sorted, err := r.entries.sorted()
	if err != nil {
		return err
	}
	var g group
	var strays []entry
	flush := func() error {
		if g.row.kind == kindRow {
			return r.judge(&g)
		}
		if g.first.kind != kindRecord {
			return nil
		}
		if strays = append(strays, g.first); len(strays) < phantomsAtOnce {
			return nil
		}
		err := r.judgeStrays(ctx, strays)
		strays = strays[:0]
		return err
	}
	for {
		encoded, err := sorted.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		e := decodeEntry(encoded)
		if e.id != g.id {
			if err := flush(); err != nil {
				return err
			}
			g = group{id: e.id}
		}
		r.take(&g, e)
	}
	return errors.Join(flush(), r.judgeStrays(ctx, strays))
}

func (r *run) take(g *group, e entry) {
	switch e.kind {
	case kindRow:
		g.row = e
	case kindParked:
		g.parked = true
	case kindRecord:
		if g.records++; g.first.kind == 0 {
			g.first = e
			return
		}
		r.report.found(&r.report.Duplicate, KindDuplicate, r.example(e, fmt.Sprintf("first at %s", r.placeOf(g.first))))
	}
}

// judge compares a row with what was found of it.
func (r *run) judge(g *group) error {
	row, record := g.row, g.first
	switch {
	case record.kind == kindRecord:
	case g.parked:
		r.report.Parked++
		return nil
	case row.flags&flagUnroutable != 0:
		r.report.found(&r.report.Unroutable, KindUnroutable, Example{EventID: row.id, Text: "the row cannot become a record by the rules, and is not parked"})
		return nil
	default:
		return r.withoutRecord(row)
	}
	r.report.Found++
	if record.flags&flagBackfilled != 0 {
		r.report.Backfilled++
	}
	if row.flags&flagUnroutable != 0 {
		return nil // published under other rules than today's
	}
	switch {
	case record.topic != row.topic:
		r.report.found(&r.report.WrongPlace, KindWrongPlace, r.example(record, "want topic "+string(r.topics.list[row.topic].topic)))
		return nil
	case record.partition != row.partition:
		r.report.found(&r.report.WrongPlace, KindWrongPlace, r.example(record, fmt.Sprintf("want partition %d", row.partition)))
	case record.content != row.content:
		r.report.found(&r.report.Changed, KindChanged, r.example(record, "key, value or headers are not those that the row routes to"))
	}
	if record.key == 0 || record.flags != 0 {
		return nil
	}
	o := orderEntry{key: record.key, topic: record.topic, partition: record.partition, offset: record.offset, commit: row.commit, xid: row.xid, command: row.command, id: row.id}
	return r.order.add(o.encode())
}

// withoutRecord judges a row that was not found.
func (r *run) withoutRecord(row entry) error {
	topic := r.topics.list[row.topic].topic
	example := Example{EventID: row.id, Topic: topic, Partition: row.partition, Offset: -1}
	extent := r.extents[place{topic, row.partition}]
	switch made := row.id.Time(); {
	case !r.report.Proved:
		r.report.found(&r.report.Pending, KindPending, example)
		return nil
	case !extent.TruncatedBefore.IsZero() && !made.IsZero() && made.Before(extent.TruncatedBefore):
		r.report.Expired++
		return nil
	}
	r.report.found(&r.report.Missing, KindMissing, example)
	return r.cfg.Missing(row.id)
}

// judgeStrays looks at records without a row in the snapshot: the row may have
// come since, or have been pruned, or be another relay's.
func (r *run) judgeStrays(ctx context.Context, strays []entry) error {
	var suspects []entry
	var ids []ID
	for _, stray := range strays {
		switch {
		case stray.flags&flagOtherSource != 0:
			r.report.Foreign++
		case stray.id.Time().IsZero() || r.report.Rows == 0 || stray.id.Compare(r.lowest) < 0:
			r.report.Pruned++
		default:
			suspects, ids = append(suspects, stray), append(ids, stray.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	exist, err := r.cfg.Rows.Exist(ctx, ids)
	if err != nil {
		return fmt.Errorf("look for the rows of %d records: %w", len(ids), err)
	}
	for _, suspect := range suspects {
		if exist[suspect.id] {
			r.report.Later++
			continue
		}
		r.report.found(&r.report.Phantom, KindPhantom, r.example(suspect, "no row of this id was committed, or it was deleted"))
	}
	return nil
}

func (r *run) example(e entry, text string) Example {
	return Example{EventID: e.id, Topic: r.topics.list[e.topic].topic, Partition: e.partition, Offset: e.offset, Text: text}
}

func (r *run) placeOf(e entry) string {
	return fmt.Sprintf("%s/%d@%d", r.topics.list[e.topic].topic, e.partition, e.offset)
}
