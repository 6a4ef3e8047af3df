package ledger_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestIdleOutboxBesideBusyTable: while only other tables are written, the slot
// follows the WAL, so that an idle outbox never fills the disk.
func TestIdleOutboxBesideBusyTable(t *testing.T) {
	t.Parallel()
	const (
		walBytes       = 100 << 20
		maxUnconfirmed = 1 << 20
		maxRetained    = 16 << 20
	)
	// A cluster of its own: what other tests write would count as retained.
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{}), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t),
	})
	relay := relaytest.Supervise(t, e.Options())
	relay.WaitState(t, cdc.StateStreaming, 30*time.Second)
	conn := e.Postgres.Connect(t, e.Database)
	before := slotOf(t, conn, e.Slot)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE busy (filler text)"); err != nil {
		t.Fatal(err)
	}
	for written := int64(0); written < walBytes; {
		if _, err := conn.Exec(t.Context(), "INSERT INTO busy SELECT repeat(md5(i::text), 30) FROM generate_series(1, 2000) i"); err != nil {
			t.Fatal(err)
		}
		written = slotOf(t, conn, e.Slot).current - before.current
	}
	ended := time.Now()
	for slot := slotOf(t, conn, e.Slot); slot.current-slot.confirmed >= maxUnconfirmed; slot = slotOf(t, conn, e.Slot) {
		if time.Since(ended) > time.Minute {
			t.Fatalf("%d bytes of WAL are unconfirmed a minute after the last large write, want less than %d", slot.current-slot.confirmed, maxUnconfirmed)
		}
		cdctest.Pause(t, 100*time.Millisecond)
	}
	t.Logf("confirmed %s after the last large write", time.Since(ended).Round(time.Millisecond))
	for slot := slotOf(t, conn, e.Slot); slot.current-slot.restart >= maxRetained; slot = slotOf(t, conn, e.Slot) {
		if time.Since(ended) > 3*time.Minute {
			t.Fatalf("%d bytes of WAL are retained 3 minutes after the last large write, want less than %d", slot.current-slot.restart, maxRetained)
		}
		// The slot can let go up to the server's records of running transactions, one of
		// which it may pass over. A server that nobody writes to makes no further one.
		if _, err := conn.Exec(t.Context(), "INSERT INTO busy VALUES ('x')"); err != nil {
			t.Fatal(err)
		}
		cdctest.Pause(t, 100*time.Millisecond)
	}
	t.Logf("retained little %s after the last large write", time.Since(ended).Round(time.Millisecond))
	relay.Stop(t)
}

// slotBytes are LSNs as byte counts.
type slotBytes struct{ current, confirmed, restart int64 }

func slotOf(t *testing.T, conn *pgx.Conn, slot string) slotBytes {
	t.Helper()
	var s slotBytes
	err := conn.QueryRow(t.Context(), `
		SELECT (pg_current_wal_lsn() - '0/0')::bigint, (confirmed_flush_lsn - '0/0')::bigint, (restart_lsn - '0/0')::bigint
		FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&s.current, &s.confirmed, &s.restart)
	if err != nil {
		t.Fatalf("slot %s: %v", slot, err)
	}
	return s
}
