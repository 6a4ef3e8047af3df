package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// admin is the fixture's Admin as the superuser.
func (f *fixture) admin(t *testing.T) *Admin {
	t.Helper()
	cfg := f.cfg
	cfg.DSN = func() (string, error) { return f.server.DSN(f.database, "postgres"), nil }
	a, err := NewAdmin(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSetupIsIdempotentAndInOrder(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	admin := f.admin(t)
	_, err := admin.EnsurePublication(t.Context())
	wantProblem(t, err, cdc.Setup, cdc.HaltStreamChanged, "table public.outbox does not exist")
	f.exec(t, plainOutbox)
	_, err = admin.CreateSlot(t.Context(), SlotOptions{})
	wantProblem(t, err, cdc.Setup, cdc.HaltStreamChanged, "publication")

	for i, want := range []bool{true, false} {
		if made, err := admin.EnsurePublication(t.Context()); err != nil || made != want {
			t.Errorf("publication, time %d: %v, %v", i+1, made, err)
		}
	}
	first, err := admin.CreateSlot(t.Context(), SlotOptions{})
	if err != nil || first.AlreadyThere || first.ConsistentPoint == 0 || first.Snapshot != "" {
		t.Fatalf("slot: %+v, %v", first, err)
	}
	second, err := admin.CreateSlot(t.Context(), SlotOptions{})
	if err != nil || !second.AlreadyThere || second.ConsistentPoint != first.ConsistentPoint {
		t.Errorf("slot again: %+v, %v", second, err)
	}
	s := f.attach(t) // what was made can be streamed by the relay's own role
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a')`)
	wantPayloads(t, transaction(t, s), "a")

	if _, err := admin.DropSlot(t.Context()); !errors.Is(err, cdc.ErrSlotActive) {
		t.Errorf("drop an active slot: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.free(t)
	f.exec(t, `DROP PUBLICATION "pub ""of"" it's"`)
	_, err = admin.EnsurePublication(t.Context())
	wantProblem(t, err, cdc.Setup, cdc.HaltStreamChanged, "is older than publication")
	for i, want := range []bool{true, false} {
		if dropped, err := admin.DropSlot(t.Context()); err != nil || dropped != want {
			t.Errorf("drop, time %d: %v, %v", i+1, dropped, err)
		}
	}
}

func TestAnUnfitPublicationIsNotTakenOver(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox+`; CREATE PUBLICATION "pub ""of"" it's"`)
	_, err := f.admin(t).EnsurePublication(t.Context())
	wantProblem(t, err, cdc.Setup, cdc.HaltStreamChanged, "does not contain table")
}

func TestASlotThatCannotBeMadeInTimeNamesItsBlockers(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	f.publish(t)
	blocker := f.server.Connect(t, "postgres") // of another database
	tx, err := blocker.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	admin := f.admin(t)
	_, err = admin.CreateSlot(t.Context(), SlotOptions{Timeout: 300 * time.Millisecond})
	wantProblem(t, err, cdc.Retry, "", "could not be made within")
	p := cdc.AsProblem(err)
	if pid := blocker.PgConn().PID(); !strings.Contains(p.Why, "in postgres since") {
		t.Errorf("the blocker, pid %d, is not named in %v", pid, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := admin.CreateSlot(ctx, SlotOptions{Timeout: patience})
		ended <- err
	}()
	await(t, "the server waits for the blocker", func() bool {
		var waits bool
		err := f.sql.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'walsender' AND wait_event_type = 'Lock')`, f.database).Scan(&waits)
		return err == nil && waits
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context's end gave %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Neither attempt has left a slot behind.
	slot, err := admin.CreateSlot(t.Context(), SlotOptions{})
	if err != nil || slot.AlreadyThere {
		t.Errorf("%+v, %v", slot, err)
	}
}

func TestAnExportedSnapshotShowsWhatTheSlotWillNotSend(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox+`; INSERT INTO outbox (payload) VALUES ('before')`)
	f.publish(t)
	slot, err := f.admin(t).CreateSlot(t.Context(), SlotOptions{ExportSnapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Release()
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('after')`)
	f.exec(t, `BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '`+slot.Snapshot+`'`)
	var seen string
	if err := f.sql.QueryRow(t.Context(), `SELECT string_agg(payload, ',') FROM outbox`).Scan(&seen); err != nil || seen != "before" {
		t.Errorf("the snapshot shows %q, %v", seen, err)
	}
	f.exec(t, `COMMIT`)
	slot.Release()
	slot.Release()
	wantPayloads(t, transaction(t, f.attach(t)), "after")
}

func TestFailoverSlots(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	f.publish(t)
	slot, err := f.admin(t).CreateSlot(t.Context(), SlotOptions{Failover: true})
	if f.server.Major() < 17 {
		wantProblem(t, err, cdc.Setup, "", "failover")
		return
	}
	if err != nil || slot.ConsistentPoint == 0 {
		t.Fatal(err)
	}
	var failover bool
	if err := f.sql.QueryRow(t.Context(), `SELECT failover FROM pg_replication_slots WHERE slot_name = $1`, f.cfg.Slot).Scan(&failover); err != nil || !failover {
		t.Errorf("failover %v, %v", failover, err)
	}
}

func TestStepsRunAsPrinted(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	f.exec(t, `DROP ROLE IF EXISTS "relay ""of"" steps"`)
	steps := f.admin(t).Steps(`relay "of" steps`, f.database, f.server.Major() >= 17)
	for _, step := range steps {
		f.exec(t, step.SQL)
	}
	f.cfg.DSN = func() (string, error) { return f.server.DSN(f.database, `relay "of" steps`), nil }
	if facts, err := f.source(t).Inspect(t.Context()); err != nil || facts.Slot == nil {
		t.Errorf("%+v, %v", facts, err)
	}
	f.exec(t, `REVOKE ALL ON DATABASE "`+f.database+`" FROM "relay ""of"" steps"`)
	f.exec(t, `DROP ROLE "relay ""of"" steps"`)
}
