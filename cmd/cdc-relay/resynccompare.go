package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// comparison is what a snapshot of the outbox has and Kafka has not, found after
// everybody was fenced who might still publish.
type comparison struct {
	report     *audit.Report
	missing    []missingRow // in the order in which they are to be published
	unroutable []audit.ID   // sorted; neither in Kafka nor parked
	oldest     time.Time    // before it, retention has left nothing in some partition; zero: it has removed nothing
	generation uint16       // the highest of any position header
	left       bool         // rows that the published floor covers were not looked at
}

type missingRow struct {
	id      audit.ID
	created int64 // microseconds; 0: not known
}

// compare reads the snapshot and the topics. Memory is 24 bytes for each row
// that is missing.
func (r *resync) compare(ctx context.Context, scan *postgres.OutboxScan) (*comparison, error) {
	found := &comparison{}
	a, err := newAuditor(r.c, "", 0)
	if err != nil {
		return nil, err
	}
	if r.floor != nil {
		if found.left, err = scan.LeaveOut(ctx, r.floor, r.witness); err != nil {
			return nil, err
		}
	}
	cfg, err := a.config(scan, audit.Range{})
	if err != nil {
		return nil, err
	}
	lowest, err := scan.LowestID(ctx)
	if err != nil {
		return nil, err
	}
	unroutable := &unroutableRows{Router: cfg.Router, ids: map[audit.ID]bool{}}
	cfg.Router, cfg.Rows = unroutable, &rowsSince{OutboxScan: scan, since: r.options.assumed}
	cfg.Records = &comparedRecords{Reader: a.reader, found: found, unroutable: unroutable, parked: cdc.Topic(r.c.ParkedTopic), idHeader: cfg.IDHeader, complete: r.options.complete}
	cfg.Since, cfg.IgnoreContent, cfg.MaxExamples = a.recordsSince(lowest), true, commandShownEvents
	cfg.Published = func(context.Context) (bool, error) { return true, nil } // nobody publishes any more
	cfg.Missing = func(id audit.ID) error { found.missing = append(found.missing, missingRow{id: id}); return nil }
	cfg.Observe = r.observe
	if found.report, err = audit.Run(ctx, cfg); err != nil {
		return nil, err
	}
	for id := range unroutable.ids {
		found.unroutable = append(found.unroutable, id)
	}
	slices.SortFunc(found.unroutable, audit.ID.Compare)
	if r.c.OnBadRow == parkBadRows {
		for _, id := range found.unroutable {
			found.missing = append(found.missing, missingRow{id: id})
		}
		found.unroutable = nil
	}
	return found, found.sort(ctx, scan, r.createdColumn())
}

// sort brings the missing rows into the order of (created_at, id), which is as
// near to that of their commits as the table can tell.
func (c *comparison) sort(ctx context.Context, scan *postgres.OutboxScan, column string) error {
	at := 0
	for rows := range slices.Chunk(c.missing, backfillBatch) {
		ids := make([]audit.ID, len(rows))
		for i := range rows {
			ids[i] = rows[i].id
		}
		if err := scan.Created(ctx, ids, column, func(id audit.ID, micros int64) {
			c.missing[at] = missingRow{id, micros}
			at++
		}); err != nil {
			return err
		}
	}
	slices.SortFunc(c.missing, func(a, b missingRow) int { return cmp.Or(cmp.Compare(a.created, b.created), a.id.Compare(b.id)) })
	return nil
}

// refusal says why nobody can tell what is in Kafka; nil: somebody can.
func (c *comparison) refusal(options *resyncOptions) *cdc.Problem {
	timeless := slices.ContainsFunc(c.missing, func(row missingRow) bool { return row.id.Time().IsZero() })
	switch {
	case c.report.Expired > 0:
		return &cdc.Problem{
			Treatment: cdc.Halt,
			What:      fmt.Sprintf("%d rows are older than what retention has left of their topics", c.report.Expired),
			Why:       "whether they were published, nothing tells any more",
			Fix:       fmt.Sprintf("cdc-relay outbox prune, if they are no longer needed; or take what was made before for published, which loses those that were not: cdc-relay resync --assume-published-before %s --confirm; or publish what is not found, which repeats what retention has removed: cdc-relay resync --assume-complete --confirm", c.oldest.UTC().Add(time.Second).Format(time.RFC3339)),
		}
	case timeless && !c.oldest.IsZero() && !options.complete:
		return &cdc.Problem{
			Treatment: cdc.Halt,
			What:      "retention has removed records from the topics, and the ids of the outbox tell no time",
			Why:       "a row that is not found may have been published and removed since",
			Fix:       "cdc-relay resync --assume-complete --confirm publishes what is not found, and repeats those events",
		}
	case len(c.unroutable) > 0 && !options.leaveUnroutable:
		return &cdc.Problem{
			Treatment: cdc.Halt, Reason: cdc.HaltBadRow,
			What: fmt.Sprintf("%d rows cannot become a record and are not parked, the first of them event %s", len(c.unroutable), c.unroutable[0]),
			Why:  "a resync decides every row",
			Fix:  "correct routing; or cdc-relay resync --leave-unroutable --confirm, which passes them over, as after cdc-relay skip",
		}
	}
	return nil
}

// rowsSince leaves out the rows that are taken for published.
type rowsSince struct {
	*postgres.OutboxScan
	since time.Time
}

// Scan implements audit.Rows.
func (s *rowsSince) Scan(ctx context.Context, in audit.Range, each func(*audit.Row) error) error {
	return s.OutboxScan.Scan(ctx, in, func(row *audit.Row) error {
		id, err := audit.ParseID(row.EventID)
		if made := id.Time(); err == nil && !made.IsZero() && made.Before(s.since) {
			return nil
		}
		return each(row)
	})
}

// unroutableRows notes what cannot become a record.
type unroutableRows struct {
	cdc.Router
	ids map[audit.ID]bool
	why map[audit.ID]string // may be nil
}

// Route implements cdc.Router.
func (u *unroutableRows) Route(row *cdc.Row) (cdc.Record, error) {
	record, err := u.Router.Route(row)
	if problem, ok := errors.AsType[*cdc.Problem](err); ok && problem.Reason == cdc.HaltBadRow {
		if id, parseErr := audit.ParseID(row.EventID); parseErr == nil {
			u.ids[id] = true
			if u.why != nil {
				u.why[id] = problem.What
			}
		}
	}
	return record, err
}

// comparedRecords notes what else the records tell.
type comparedRecords struct {
	*kafka.Reader
	found      *comparison
	unroutable *unroutableRows
	parked     cdc.Topic
	idHeader   string
	complete   bool // what retention has removed is not asked for
}

// Read implements audit.Records.
func (c *comparedRecords) Read(ctx context.Context, topics []cdc.Topic, since time.Time, each func(*audit.Record) error) ([]audit.Extent, error) {
	extents, err := c.Reader.Read(ctx, topics, since, func(record *audit.Record) error {
		text := record.Key
		if record.Topic != c.parked {
			text = headerValue(record, c.idHeader)
		}
		if id, err := audit.ParseID(text); err == nil {
			delete(c.unroutable.ids, id)
		}
		if position, ok := positionOf(record); ok {
			c.found.generation = max(c.found.generation, position.Generation)
		}
		return each(record)
	})
	for i := range extents {
		if extents[i].TruncatedBefore.After(c.found.oldest) {
			c.found.oldest = extents[i].TruncatedBefore
		}
		if c.complete {
			extents[i].TruncatedBefore = time.Time{}
		}
	}
	return extents, err
}
