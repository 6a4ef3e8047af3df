package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

func (r *resync) begin(publisher cdc.Publisher, kafkaFacts cdc.KafkaFacts, pins []cdc.TopicPin) {
	r.placer, r.mark = newPlacer(publisher, kafkaFacts, pins), uuid.NewString()
	r.pinsDue = r.publishesNothing // then nothing has written them yet
}

// createdColumn is the column that tells when a row was made.
func (r *resync) createdColumn() string {
	if name := r.c.Postgres.Columns["created_at"]; name != "" {
		return name
	}
	return "created_at"
}

// publishMissing compares and publishes, in transactions whose record still says
// resyncing: whoever dies in between leaves behind what the next run finds.
func (r *resync) publishMissing(ctx context.Context, scan *postgres.OutboxScan, begun *cdc.PositionRecord) error {
	found, err := r.compare(ctx, scan)
	if err != nil {
		return err
	}
	if problem := r.refusal(found); problem != nil {
		return problem
	}
	r.say(found)
	published := int64(0)
	for rows := range slices.Chunk(found.missing, min(backfillBatch, r.c.Batch.MaxRows)) {
		records, err := r.records(ctx, scan, rows)
		if err != nil {
			return err
		}
		for len(records) > 0 {
			n := r.fitting(records)
			if err := r.commitQuietly(ctx, begun, r.pinsToWrite(), records[:n]...); err != nil {
				return err
			}
			records = records[n:]
			published += int64(n)
			r.observe(audit.Progress{Phase: "publishing", Done: published})
		}
	}
	return nil
}

// fitting is how many of the records one transaction takes.
func (r *resync) fitting(records []cdc.Record) int {
	bytes := 0
	for i := range records {
		if bytes += records[i].Bytes(); i > 0 && bytes > int(r.c.Batch.MaxBytes) {
			return i
		}
	}
	return len(records)
}

// records routes the rows as the relay would, in the given order.
func (r *resync) records(ctx context.Context, scan *postgres.OutboxScan, rows []missingRow) ([]cdc.Record, error) {
	at := make(map[audit.ID]int, len(rows))
	ids := make([]audit.ID, len(rows))
	for i := range rows {
		at[rows[i].id], ids[i] = i, rows[i].id
	}
	records := make([]cdc.Record, len(rows))
	err := scan.ByID(ctx, ids, func(row *audit.Row) error {
		kept := keepRow(row)
		record, err := r.router.Route(&kept)
		if err != nil {
			if record, err = r.park(&kept, cdc.AsProblem(err)); err != nil {
				return err
			}
		}
		i, ok := at[mustParseID(kept.EventID)]
		if !ok {
			return fmt.Errorf("read the outbox: row %s was not asked for", kept.EventID)
		}
		records[i], err = r.place(ctx, &kept, record.Clone())
		return err
	})
	return records, err
}

// place chooses the partition and marks the record.
func (r *resync) place(ctx context.Context, row *cdc.Row, record cdc.Record) (cdc.Record, error) {
	placed, err := r.placer.place(ctx, row, record)
	if problem := cdc.AsProblem(err); problem != nil {
		parked, err := r.park(row, problem)
		if err != nil || record.Topic == parked.Topic {
			return record, problem
		}
		return r.place(ctx, row, parked)
	}
	markLate(&placed, audit.HeaderResync, r.mark)
	return placed, nil
}

// park makes the record that tells of a bad row, where the relay would.
func (r *resync) park(row *cdc.Row, why *cdc.Problem) (cdc.Record, error) {
	if park := parker(r.c, r.router); park != nil && why.Reason == cdc.HaltBadRow {
		return park(row, why), nil
	}
	return cdc.Record{}, why
}
