package halts_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// TestFailoverDoesNotHalt moves the database to its standby while rows are
// written and one relay streams. The relay goes on by itself on the new
// timeline, with nothing lost, repeated or out of order.
func TestFailoverDoesNotHalt(t *testing.T) {
	t.Parallel()
	if cdctest.SharedKafka(t).Real() { // the other one is the harder, and this one takes as long
		t.Run("planned, with a slot that was copied along", func(t *testing.T) {
			t.Parallel()
			b := newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{}))
			standby := b.startStandby(t, nil)
			// A standby that does not stream yet would not be waited for by the shutdown.
			b.failOver(t, standby, "fast", func() { b.awaitReplay(t, standby) })
		})
	}
	t.Run("after a crash, with a synchronised failover slot", func(t *testing.T) {
		t.Parallel()
		primary := cdctest.StartPostgres(t, cdctest.PostgresConfig{Major: 18, Settings: map[string]string{"synchronized_standby_slots": "standby"}})
		if _, err := primary.Connect(t, "postgres").Exec(t.Context(), `SELECT pg_create_physical_replication_slot('standby')`); err != nil {
			t.Fatal(err)
		}
		standby := primary.StartStandby(t, map[string]string{
			"primary_slot_name": "standby", "hot_standby_feedback": "on", "sync_replication_slots": "on", "synchronized_standby_slots": "",
		})
		b := newBedOn(t, primary)
		// Its worker ends for long where it finds the slot of a database that is not
		// there yet.
		b.awaitReplay(t, standby)
		b.makeFailoverSlot(t)
		watcher := standby.Connect(t, "postgres")
		b.failOver(t, standby, "immediate", func() {
			eventually(t, "the standby has the slot", func() bool {
				query(t, watcher, `SELECT pg_reload_conf()`) // wakes the worker, whose naps get longer
				b.exec(t, `SELECT pg_log_standby_snapshot()`)
				return query(t, watcher, `SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = $1`, b.Slot) == "true"
			})
		})
	})
}

// failOver is one failover under load. ready returns when the standby may take
// over; the relay streams by then.
func (b *bed) failOver(t *testing.T, standby *cdctest.Postgres, mode string, ready func()) {
	t.Helper()
	dsn := filepath.Join(t.TempDir(), "dsn")
	pointTo := func(postgres *cdctest.Postgres) {
		if err := os.WriteFile(dsn, []byte(postgres.DSN(b.Database, "cdc_relay")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pointTo(b.Postgres)
	_, line, _ := strings.Cut(b.Config(), "  dsn: ")
	line, _, _ = strings.Cut(line, "\n")
	b.config = []string{"  dsn: " + line + "\n", "  dsn_file: " + dsn + "\n"}
	b.configure(t)
	relay := b.run(t)
	relay.WaitState(t, cdc.StateStreaming, patience)
	w := b.startWriter(t)
	ready()
	w.awaitMore(t)

	b.Postgres.Stop(t, mode)
	b.config = nil // the old DSN is not in the configuration any more
	if promoted := query(t, standby.Connect(t, "postgres"), `SELECT pg_promote()`); promoted != "true" {
		t.Fatalf("pg_promote: %s", promoted)
	}
	pointTo(standby)
	w.moveTo(standby.DSN(b.Database, "postgres"))
	b.Postgres, b.db = standby, standby.Connect(t, b.Database)
	w.awaitMore(t)
	w.end(t)
	b.awaitDelivered(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	b.requireExact(t)
	if lineage := b.newestRecord(t).Lineage; len(lineage) != 2 || lineage[1].Timeline != 2 {
		t.Errorf("the position record names the timelines %v, want 1 and 2", lineage)
	}
}

// makeFailoverSlot marks the slot, as PostgreSQL 17 and newer can.
func (b *bed) makeFailoverSlot(t *testing.T) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), b.Postgres.DSN(b.Database, "postgres")+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.Exec(t.Context(), `ALTER_REPLICATION_SLOT `+b.Slot+` (FAILOVER true)`).Close(); err != nil {
		t.Fatal(err)
	}
}

// writer commits rows one transaction after the other, over failures: what
// became of a transaction whose outcome it did not learn, the table tells.
type writer struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	dsn       string
	committed int
}

func (b *bed) startWriter(t *testing.T) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{cancel: cancel, dsn: b.Postgres.DSN(b.Database, "postgres")}
	w.done.Go(func() {
		for ctx.Err() == nil {
			w.write(ctx, b)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { cancel(); w.done.Wait() })
	return w
}

// write writes until the session breaks.
func (w *writer) write(ctx context.Context, b *bed) {
	w.mu.Lock()
	dsn := w.dsn
	w.mu.Unlock()
	connecting, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(connecting, dsn)
	if err != nil {
		return
	}
	defer conn.Close(context.Background())
	for ctx.Err() == nil {
		// Neither the end of the writer nor the age of the session breaks off a
		// statement: it might commit after everything that is in the table was awaited,
		// or after the rows of the next session.
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		_, err := conn.Exec(lasting, insertTwo, b.Topic, b.seq)
		cancel()
		b.seq += 2
		if err != nil {
			return
		}
		w.mu.Lock()
		w.committed++
		w.mu.Unlock()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *writer) moveTo(dsn string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dsn = dsn
}

// awaitMore waits for a hundred further transactions.
func (w *writer) awaitMore(t *testing.T) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.committed
	}
	want := count() + 100
	eventually(t, "more rows are written", func() bool { return count() >= want })
}

func (w *writer) end(t *testing.T) {
	t.Helper()
	w.cancel()
	w.done.Wait()
}

// TestFailoverThatLostNothingOfOurs: the standby had not received the end of the
// WAL, which was recorded and acknowledged, but no row was in it. What commits
// where that WAL was is new.
func TestFailoverThatLostNothingOfOurs(t *testing.T) {
	t.Parallel()
	b := newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{}))
	standby := b.startStandby(t, nil)
	b.write(t, 2)
	b.once(t)
	b.awaitReplay(t, standby)
	standby.Stop(t, "fast")
	b.writeWAL(t, 500)
	b.once(t)
	recorded := b.newestRecord(t).RecordedLSN
	b.Postgres.Stop(t, "immediate")
	standby.Start(t)
	b.promote(t, standby)
	b.write(t, 2)
	if now := parseLSN(t, query(t, b.db, `SELECT pg_current_wal_insert_lsn()::text`)); now >= recorded {
		t.Fatalf("the new rows end at %s, not below the recorded %s: nothing is tested", now, recorded)
	}
	b.once(t)
	b.requireExact(t)
	if lineage := b.newestRecord(t).Lineage; len(lineage) != 2 {
		t.Errorf("the position record names the timelines %v, want 1 and 2", lineage)
	}
	b.write(t, 2)
	b.once(t)
	b.requireExact(t)
}
