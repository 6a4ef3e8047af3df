//go:build ops

package halts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestMajorUpgrade follows docs/major-upgrade.md with pg_upgrade itself.
func TestMajorUpgrade(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to int
		slot     string // of the relay in the new cluster, before anybody made one
	}{
		{15, 17, ""},
		{17, 18, "pgoutput"},
	} {
		t.Run(fmt.Sprintf("%d to %d", c.from, c.to), func(t *testing.T) {
			t.Parallel()
			b, before := newStoppedBed(t, c.from)
			b.moveTo(t, b.Postgres.Upgrade(t, fullPostgres(t, c.to)))
			if now := b.systemID(t); now == before {
				t.Errorf("pg_upgrade kept the system identifier %s", now)
			}
			if got := query(t, b.db, `SELECT plugin FROM pg_replication_slots WHERE slot_name = $1`, b.Slot); got != c.slot {
				t.Errorf("the new cluster has the slot with plugin %q, want %q", got, c.slot)
			}
			b.haltsAtUpgrade(t)
			b.follow(t, "adopt --new-system")
			if again := b.command(t, 0, "adopt", "--new-system", "--confirm"); again.Done {
				t.Errorf("the second adoption did something: %+v", again)
			}
			b.goesOn(t, 2)
		})
	}
}

// TestMajorUpgradeWritersTooEarly: the slot was made when the writers had begun,
// so that it does not send their first rows.
func TestMajorUpgradeWritersTooEarly(t *testing.T) {
	t.Parallel()
	b, _ := newStoppedBed(t, 15)
	b.moveTo(t, b.Postgres.Upgrade(t, fullPostgres(t, 17)))
	b.write(t, 3)
	b.exec(t, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, b.Slot)
	b.write(t, 2)
	b.haltsAtUpgrade(t)
	b.command(t, 5, "adopt", "--new-system", "--confirm")
	b.resync(t, 0)
}

// TestMajorUpgradeSlotBeforeWriters: with a slot, of pg_upgrade or made by hand,
// the writers need not wait for the adoption. The slot is kept, and what they
// wrote comes in the order of its commits.
func TestMajorUpgradeSlotBeforeWriters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to int }{{15, 17}, {17, 18}} {
		t.Run(fmt.Sprintf("%d to %d", c.from, c.to), func(t *testing.T) {
			t.Parallel()
			b, _ := newStoppedBed(t, c.from)
			b.moveTo(t, b.Postgres.Upgrade(t, fullPostgres(t, c.to)))
			if c.to == 17 {
				b.exec(t, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, b.Slot)
			}
			before := query(t, b.db, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, b.Slot)
			w := b.startWriter(t)
			w.awaitMore(t)
			b.haltsAtUpgrade(t)
			b.follow(t, "adopt --new-system")
			if record := b.newestRecord(t); record.RecordedLSN.String() != before {
				t.Errorf("the relay goes on at %s, want %s, where the slot stood", record.RecordedLSN, before)
			}
			w.awaitMore(t)
			w.end(t)
			b.goesOn(t, 2)
		})
	}
}

// TestMajorUpgradeAndBack: the old server takes over again before the writers
// were let go.
func TestMajorUpgradeAndBack(t *testing.T) {
	t.Parallel()
	b, _ := newStoppedBed(t, 17)
	old := b.Postgres
	b.moveTo(t, old.Upgrade(t, fullPostgres(t, 18)))
	b.haltsAtUpgrade(t)
	b.follow(t, "adopt --new-system")
	b.once(t)
	b.Postgres.Stop(t, "fast")
	old.Start(t)
	b.moveTo(t, old)
	b.haltsAtUpgrade(t)
	b.follow(t, "adopt --new-system")
	b.goesOn(t, 3)
}

// TestMajorUpgradeRefusesWhatIsNotPublished: from 17 on pg_upgrade itself looks
// whether the slot is at the end, and says so before it has changed anything.
func TestMajorUpgradeRefusesWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	b, relay := newUpgradeBed(t, 17)
	b.write(t, 2)
	b.awaitDelivered(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	b.write(t, 2)
	b.Postgres.Stop(t, "fast")
	if said := b.Postgres.UpgradeRefused(t, fullPostgres(t, 18)); !strings.Contains(said, "slot") {
		t.Errorf("pg_upgrade said:\n%s", said)
	}
	b.Postgres.Start(t)
	b.moveTo(t, b.Postgres)
	b.once(t)
	b.requireExact(t)
}

func fullPostgres(t *testing.T, major int) string {
	t.Helper()
	dir, err := cdctest.FullPostgres(major)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newStoppedBed is one that is ready for pg_upgrade: a writer wrote under the
// relay, and both and the server were stopped as the runbook says. It returns
// the system identifier, too.
func newStoppedBed(t *testing.T, major int) (*bed, string) {
	t.Helper()
	b, relay := newUpgradeBed(t, major)
	w := b.startWriter(t)
	w.awaitMore(t)
	return b, b.shutDown(t, w, relay)
}

// newUpgradeBed has a server of its own with a running relay.
func newUpgradeBed(t *testing.T, major int) (*bed, *relaytest.Process) {
	t.Helper()
	b := newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{BinDir: fullPostgres(t, major)}))
	relay := b.run(t)
	relay.WaitState(t, cdc.StateStreaming, patience)
	return b, relay
}

func (b *bed) systemID(t *testing.T) string {
	t.Helper()
	return query(t, b.db, `SELECT system_identifier::text FROM pg_control_system()`)
}

// shutDown does the first steps: writers, what is published, relay, server. It
// returns the system identifier.
func (b *bed) shutDown(t *testing.T, w *writer, relay *relaytest.Process) string {
	t.Helper()
	w.end(t)
	b.command(t, 0, "wait", "--lsn", query(t, b.db, `SELECT pg_current_wal_insert_lsn()::text`))
	b.exec(t, `CREATE TABLE unrelated AS SELECT 1 AS n`) // what the slot has to pass, too
	end := query(t, b.db, `SELECT pg_current_wal_flush_lsn()::text`)
	eventually(t, "the slot has passed everything", func() bool {
		return query(t, b.db, `SELECT confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`, b.Slot, end) == "true"
	})
	id := b.systemID(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	b.Postgres.Stop(t, "fast")
	return id
}

// haltsAtUpgrade demands that the relay takes the new cluster for another one.
func (b *bed) haltsAtUpgrade(t *testing.T) {
	t.Helper()
	relay := b.run(t)
	if code := wait(t, relay); code != 5 {
		t.Fatalf("the relay ended with exit code %d, want 5", code)
	}
	b.message = requireHalt(t, relay, cdc.HaltOtherDatabase, []string{"system id"})
}

// goesOn writes under a running relay, and demands that every row of before and
// after the upgrade was delivered once, in order, and that an audit is clean.
func (b *bed) goesOn(t *testing.T, generation uint16) {
	t.Helper()
	relay := b.run(t)
	relay.WaitState(t, cdc.StateStreaming, patience)
	w := b.startWriter(t)
	w.awaitMore(t)
	w.end(t)
	b.command(t, 0, "wait", "--lsn", query(t, b.db, `SELECT pg_current_wal_insert_lsn()::text`))
	b.requireExact(t)
	b.command(t, 0, "audit")
	if record := b.newestRecord(t); record.Generation != generation || record.SystemID != b.systemID(t) {
		t.Errorf("the position record has generation %d and system id %s", record.Generation, record.SystemID)
	}
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
}
