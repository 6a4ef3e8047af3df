package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func (f *fixture) scan(t *testing.T) *OutboxScan {
	t.Helper()
	cfg := f.cfg
	cfg.DSN = func() (string, error) { return f.server.DSN(f.database, "postgres"), nil }
	s, err := OpenOutboxScan(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func scanned(t *testing.T, s *OutboxScan, in audit.Range) (ids []string, rows []audit.Row) {
	t.Helper()
	err := s.Scan(t.Context(), in, func(row *audit.Row) error {
		kept := *row
		kept.Values, kept.EventID = nil, slices.Clone(row.EventID)
		for _, value := range row.Values {
			kept.Values = append(kept.Values, slices.Clone(value))
		}
		ids, rows = append(ids, string(row.EventID)), append(rows, kept)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, rows
}

func uuidOf(n int) string { return fmt.Sprintf("0195d3f0-0000-7000-8000-%012d", n) }

func mustID(t *testing.T, text string) audit.ID {
	t.Helper()
	id, err := audit.ParseID([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The values are byte for byte those that the stream sends.
func TestScanAndStreamAgree(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	f.exec(t, `DROP TABLE public.outbox CASCADE; DROP PUBLICATION `+quoteIdentifier(f.cfg.Publication)+`; SELECT pg_drop_replication_slot('`+f.cfg.Slot+`')`)
	f.exec(t, `CREATE TABLE public.outbox (id uuid PRIMARY KEY, aggregatetype text, dropped int, aggregateid int8, type varchar(20), payload jsonb, raw bytea, "at" timestamptz, n numeric, f float8, b bool)`)
	f.exec(t, `ALTER TABLE public.outbox DROP COLUMN dropped`)
	f.publish(t)
	f.slot(t)
	s := f.attach(t)
	f.exec(t, `ALTER ROLE postgres IN DATABASE `+f.database+` SET DateStyle = 'German'; ALTER ROLE postgres IN DATABASE `+f.database+` SET extra_float_digits = 0`)
	f.exec(t, `INSERT INTO public.outbox VALUES ('`+uuidOf(1)+`', 'a', 42, 't', '{"b": 1.50, "a": "x\u00e9"}', '\xdeadbeef', '2026-03-01 12:00:00.5+02', 1.500, 0.1::float8 + 0.2, true), ('`+uuidOf(2)+`', NULL, NULL, '', NULL, '', 'infinity', 'NaN', '-0', false)`)
	streamed := transaction(t, s)
	_, rows := scanned(t, f.scan(t), audit.Range{})
	if len(rows) != 2 || len(streamed) != 2 {
		t.Fatalf("%d rows scanned, %d streamed", len(rows), len(streamed))
	}
	for i := range rows {
		if diff := cmp.Diff(streamed[i].Values, rows[i].Values); diff != "" {
			t.Errorf("row %d (-stream +scan):\n%s", i, diff)
		}
		if rows[i].XID != streamed[i].XID || !slices.Equal(rows[i].EventID, streamed[i].EventID) {
			t.Errorf("row %d: xid %d and id %s, streamed %d and %s", i, rows[i].XID, rows[i].EventID, streamed[i].XID, streamed[i].EventID)
		}
		for j, column := range rows[i].Relation.Columns {
			if want := streamed[i].Relation.Columns[j]; column.Name != want.Name || column.TypeOID != want.TypeOID {
				t.Errorf("column %d is %+v, streamed %+v", j, column, want)
			}
		}
	}
}

func TestScanSeesOneSnapshotOfARange(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	f.exec(t, `BEGIN; INSERT INTO outbox (id) VALUES ('`+uuidOf(3)+`'); SAVEPOINT s; INSERT INTO outbox (id) VALUES ('`+uuidOf(1)+`'), ('`+uuidOf(2)+`'); COMMIT`)
	f.exec(t, `INSERT INTO outbox (id) SELECT ('0195d3f0-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid FROM generate_series(4, 4500) AS i`)
	s := f.scan(t)
	f.exec(t, `INSERT INTO outbox (id) VALUES ('`+uuidOf(9000)+`'); DELETE FROM outbox WHERE id = '`+uuidOf(2)+`'`)
	ids, rows := scanned(t, s, audit.Range{})
	if len(ids) != 4500 || ids[0] != uuidOf(1) || ids[4499] != uuidOf(4500) || !slices.IsSorted(ids) {
		t.Fatalf("%d rows from %s to %s", len(ids), ids[0], ids[len(ids)-1])
	}
	if rows[2].CommandID >= rows[0].CommandID || rows[0].CommandID != rows[1].CommandID {
		t.Errorf("row 3 was inserted by command %d, before rows 1 and 2 by %d and %d", rows[2].CommandID, rows[0].CommandID, rows[1].CommandID)
	}
	if ids, _ := scanned(t, s, audit.Range{From: mustID(t, uuidOf(10)), To: mustID(t, uuidOf(20))}); len(ids) != 10 || ids[0] != uuidOf(10) {
		t.Errorf("the range has %v", ids)
	}
	if estimate, err := s.Estimate(t.Context(), audit.Range{To: mustID(t, uuidOf(20))}); err != nil || estimate <= 0 {
		t.Errorf("estimate %d, %v", estimate, err)
	}
	exist, err := s.Exist(t.Context(), []audit.ID{mustID(t, uuidOf(1)), mustID(t, uuidOf(2)), mustID(t, uuidOf(9000))})
	if err != nil || !exist[mustID(t, uuidOf(1))] || exist[mustID(t, uuidOf(2))] || !exist[mustID(t, uuidOf(9000))] {
		t.Errorf("now exist %v, %v", exist, err)
	}
	var byID []string
	err = s.ByID(t.Context(), []audit.ID{mustID(t, uuidOf(7)), mustID(t, uuidOf(2)), mustID(t, uuidOf(9000))}, func(row *audit.Row) error {
		byID = append(byID, string(row.EventID))
		return nil
	})
	if err != nil || !slices.Equal(byID, []string{uuidOf(2), uuidOf(7)}) {
		t.Errorf("by id: %v, %v", byID, err)
	}
	stop := errors.New("enough")
	if err := s.Scan(t.Context(), audit.Range{}, func(*audit.Row) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error became %v", err)
	}
}

func TestScanWithoutTheRight(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	_, err := OpenOutboxScan(t.Context(), f.cfg)
	wantProblem(t, err, cdc.Setup, "", `role "relay_under_test" may not read table public.outbox`)
}

func TestPruneWithoutTheRight(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	admin, err := NewAdmin(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.Prune(t.Context(), PruneConfig{Keep: time.Hour, Safe: func(context.Context) error { return nil }})
	wantProblem(t, err, cdc.Setup, "", `role "relay_under_test" does not own table public.outbox`)
}

// What Safe refuses stays, whatever the slot says.
func TestPruneAsksWhetherItIsSafe(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	f.exec(t, `INSERT INTO outbox (id) VALUES ('`+uuidOf(1)+`'), ('`+uuidOf(2)+`')`)
	// A slot that has read everything, as that of a resync has.
	f.exec(t, `SELECT pg_replication_slot_advance('`+f.cfg.Slot+`', pg_current_wal_lsn())`)
	cfg := f.cfg
	cfg.DSN = func() (string, error) { return f.server.DSN(f.database, "postgres"), nil }
	admin, err := NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever advances the slot stands for the relay; it may lie behind the WAL of others.
	done := make(chan struct{})
	defer func() { <-done }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = f.sql.Exec(ctx, `SELECT pg_replication_slot_advance('`+f.cfg.Slot+`', pg_current_wal_lsn())`)
		}
	}()
	unsafe := errors.New("a resync is unfinished")
	report, err := admin.Prune(t.Context(), PruneConfig{Keep: time.Hour, Safe: func(context.Context) error { return unsafe }})
	if !errors.Is(err, unsafe) || report.DeletedRows != 0 {
		t.Errorf("unsafe: %+v, %v", report, err)
	}
	report, err = admin.Prune(t.Context(), PruneConfig{Keep: time.Hour, Safe: func(context.Context) error { return nil }})
	if err != nil || report.DeletedRows != 2 || report.AnyKept() {
		t.Errorf("safe: %+v, %v", report, err)
	}
}
