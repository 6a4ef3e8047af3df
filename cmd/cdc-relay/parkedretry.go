package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// retryReport is the output of `parked retry -o json`, a contract.
type retryReport struct {
	Run       string       `json:"run"` // the value of the header cdc-relay-backfill
	DryRun    bool         `json:"dry_run"`
	Published int          `json:"published"` // in this run; in a dry run, that would be
	Left      int          `json:"left"`      // parked rows that are still not in their topic
	Rows      []retriedRow `json:"rows"`
}

// retriedRow is what became of a parked row.
type retriedRow struct {
	EventID string `json:"event_id"`
	Outcome string `json:"outcome"` // published, already there, still bad, gone
	Why     string `json:"why,omitempty"`
}

// The outcomes of a retry.
const (
	retryPublished = "published"
	retryThere     = "already there"
	retryBad       = "still bad"
	retryGone      = "gone"
)

func (r *retryReport) print(w io.Writer) {
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%-14s %s", row.Outcome, row.EventID)
		if row.Why != "" {
			fmt.Fprintf(w, "  %s", row.Why)
		}
		fmt.Fprintln(w)
	}
	verb := "published"
	if r.DryRun {
		verb = "would be published"
	}
	fmt.Fprintf(w, "%d rows %s, %d left\n", r.Published, verb, r.Left)
	if r.Published > 0 && !r.DryRun {
		fmt.Fprintf(w, "marked with the header %s: %s\n", audit.HeaderBackfill, r.Run)
	}
}

func (r *retryReport) note(id, outcome, why string) {
	r.Rows = append(r.Rows, retriedRow{id, outcome, why})
	switch outcome {
	case retryPublished:
		r.Published++
	case retryBad, retryGone:
		r.Left++
	}
}

// retry publishes as a backfill does: fenced against every other one, and only
// what the topics have not.
type retry struct {
	*backfill
	report *retryReport
}

func newRetry(c *loadedConfig, dryRun bool) (*retry, error) {
	a, err := newAuditor(c, "", 0)
	if err != nil {
		return nil, err
	}
	run := uuid.NewString()
	return &retry{
		backfill: &backfill{auditor: a, report: &backfillReport{Run: run}},
		report:   &retryReport{Run: run, DryRun: dryRun, Rows: []retriedRow{}},
	}, nil
}

func (r *retry) run(ctx context.Context, args []string) error {
	ids, err := r.parkedIDs(ctx, args)
	if err != nil || len(ids) == 0 {
		return err
	}
	var out *kafka.Backfiller
	if !r.report.DryRun {
		if out, err = r.sink.OpenBackfill(ctx); err != nil {
			return err
		}
		defer out.Close()
		if err := r.running(ctx); err != nil {
			return err
		}
	}
	scan, err := postgres.OpenOutboxScan(ctx, r.postgres)
	if err != nil {
		return err
	}
	defer scan.Close()
	missing, err := r.look(ctx, scan, ids)
	if err != nil {
		return err
	}
	return r.publishEach(ctx, scan, out, missing)
}

// parkedIDs are the ids of the rows to try, sorted: those named, which have to be
// parked, or all.
func (r *retry) parkedIDs(ctx context.Context, args []string) ([]audit.ID, error) {
	rows, err := readParked(ctx, r.c, false)
	if err != nil {
		return nil, err
	}
	var ids []audit.ID
	for i := range rows {
		id, err := audit.ParseID([]byte(rows[i].EventID))
		if err == nil && (len(args) == 0 || slices.Contains(args, rows[i].EventID)) {
			ids = append(ids, id)
		}
	}
	for _, arg := range args {
		if !slices.ContainsFunc(rows, func(row parkedRow) bool { return row.EventID == arg }) {
			return nil, &cdc.Problem{What: fmt.Sprintf("event %s is not parked", arg), Why: "only rows that the relay has set aside are tried again", Fix: "cdc-relay parked list"}
		}
	}
	slices.SortFunc(ids, audit.ID.Compare)
	return slices.Compact(ids), nil
}

// look tells the rows apart; those that it returns can be published.
func (r *retry) look(ctx context.Context, scan *postgres.OutboxScan, ids []audit.ID) (missing []audit.ID, err error) {
	cfg, err := r.config(scan, audit.Range{})
	if err != nil {
		return nil, err
	}
	rows := &seenRows{listedRows: listedRows{OutboxScan: scan, ids: ids}, seen: map[audit.ID]bool{}}
	bad := &unroutableRows{Router: cfg.Router, ids: map[audit.ID]bool{}, why: map[audit.ID]string{}}
	cfg.Rows, cfg.Router, cfg.IDs, cfg.Since, cfg.IgnoreContent = rows, bad, ids, r.recordsSince(ids[0]), true
	cfg.Topics = nil     // only where the rows go
	cfg.ParkedTopic = "" // what is told of there and nowhere else is what is missing
	cfg.Published = func(context.Context) (bool, error) { return true, nil }
	cfg.Missing = func(id audit.ID) error { missing = append(missing, id); return nil }
	if _, err := audit.Run(ctx, cfg); err != nil {
		return nil, err
	}
	for _, id := range ids {
		switch {
		case !rows.seen[id]:
			r.report.note(id.String(), retryGone, "the outbox has the row no more; cdc-relay parked show has its content")
		case bad.ids[id]:
			r.report.note(id.String(), retryBad, bad.why[id])
		case !slices.Contains(missing, id):
			r.report.note(id.String(), retryThere, "")
		}
	}
	return missing, nil
}

// seenRows notes which of the rows exist.
type seenRows struct {
	listedRows
	seen map[audit.ID]bool
}

// Scan implements audit.Rows.
func (s *seenRows) Scan(ctx context.Context, in audit.Range, each func(*audit.Row) error) error {
	return s.listedRows.Scan(ctx, in, func(row *audit.Row) error {
		s.seen[mustParseID(row.EventID)] = true
		return each(row)
	})
}

// publishEach sends each row in a transaction of its own, so that one that its
// topic refuses keeps none back.
func (r *retry) publishEach(ctx context.Context, scan *postgres.OutboxScan, out *kafka.Backfiller, missing []audit.ID) error {
	router, err := newRouter(r.c)
	if err != nil {
		return err
	}
	for _, id := range missing {
		if out == nil {
			r.report.note(id.String(), retryPublished, "")
			continue
		}
		records, err := r.records(ctx, scan, router, []audit.ID{id})
		if err != nil {
			return err
		}
		if err := out.Refuses(ctx, id.String(), records[0]); err != nil {
			if problem, ok := errors.AsType[*cdc.Problem](err); ok && problem.Reason == cdc.HaltBadRow {
				r.report.note(id.String(), retryBad, problem.What)
				continue
			}
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		err = out.Publish(bounded, records)
		cancel()
		if err != nil {
			return err
		}
		r.report.note(id.String(), retryPublished, "")
	}
	return nil
}
