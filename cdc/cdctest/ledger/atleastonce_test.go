package ledger_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// repeating is the configuration of a relay in mode at-least-once.
const repeating = "delivery: at-least-once"

// requireAtLeastOnce demands a report without violations of that mode's rules
// about at least rows rows, and returns it.
func requireAtLeastOnce(t *testing.T, l *ledger.Ledger, rows int) ledger.Report {
	t.Helper()
	report := l.Report(t)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if report.Rows < rows || report.Batches != 0 {
		t.Fatalf("%d rows were checked, want %d, by %d position records, want none", report.Rows, rows, report.Batches)
	}
	return report
}

func TestAtLeastOnceUnderKills(t *testing.T) {
	t.Parallel()
	k := killing{kills: 5, rows: 6000, rowsPerSecond: 2000}
	if cdctest.SharedKafka(t).Real() {
		k = underLoad(t)
	}
	e := environment(t, relaytest.Build(t), repeating)
	l := k.run(t, e, ledger.Config{AtLeastOnce: true, RowsPerSecond: k.rowsPerSecond, BigTransactionRows: 3000, Seed: cdctest.Seed(t)})
	requireAtLeastOnce(t, l, k.rows)
}

// TestAtLeastOnceWithSmallBatches makes database transactions larger than a
// batch, so that kills hit a transaction of which Kafka has a part.
func TestAtLeastOnceWithSmallBatches(t *testing.T) {
	t.Parallel()
	k := killing{kills: 3, rows: 3000, rowsPerSecond: 2000}
	e := environment(t, relaytest.Build(t), repeating+"\nbatch: {max_rows: 100}")
	l := k.run(t, e, ledger.Config{AtLeastOnce: true, RowsPerSecond: k.rowsPerSecond, BigTransactionRows: 1500, Seed: cdctest.Seed(t)})
	requireAtLeastOnce(t, l, k.rows)
}

// TestAtLeastOncePostgresCrashes: the slot falls back to where it stood on disk,
// and here nothing else knows better: rows are repeated.
func TestAtLeastOncePostgresCrashes(t *testing.T) {
	t.Parallel()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"checkpoint_timeout": "1h"}}),
		Kafka:    cdctest.SharedKafka(t), Binary: relaytest.Build(t), Extra: repeating,
	})
	l := e.Watch(t, ledger.Config{AtLeastOnce: true, SlotFallsBack: true, RowsPerSecond: 1000, Seed: cdctest.Seed(t)})
	relay := relaytest.Supervise(t, e.Options())
	for range 2 {
		l.WaitSeen(t, l.Observer().Count()+500, time.Minute)
		e.Postgres.Stop(t, "immediate")
		e.Postgres.Start(t)
		relay.WaitState(t, cdc.StateStreaming, time.Minute)
	}
	l.WaitSeen(t, l.Observer().Count()+500, time.Minute)
	l.Stop(t)
	relay.Stop(t)
	if report := requireAtLeastOnce(t, l, 1500); report.Repeats == 0 {
		t.Error("nothing was repeated: the slot did not fall back, and this test shows nothing")
	}
}

// TestAtLeastOncePausedReplica pauses the active replica until the server gives
// the slot to the other one, and lets it go on then: nobody fences it, so what
// it still publishes are repeats, and nothing else.
func TestAtLeastOncePausedReplica(t *testing.T) {
	t.Parallel()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"wal_sender_timeout": "1500ms"}}),
		Kafka:    cdctest.SharedKafka(t), Binary: relaytest.Build(t), Extra: repeating,
	})
	l := e.Watch(t, ledger.Config{AtLeastOnce: true, RowsPerSecond: 1500, Seed: cdctest.Seed(t)})
	active := relaytest.Start(t, e.Options())
	l.WaitSeen(t, 200, time.Minute)
	otherOptions := e.Options()
	otherOptions.Env = []string{"CDC_RELAY_ADMIN_LISTEN=127.0.0.1:0"}
	standby := relaytest.Start(t, otherOptions)
	for range 3 {
		active.Signal(syscall.SIGSTOP)
		l.WaitSeen(t, l.Observer().Count()+1000, time.Minute) // by the one that took over
		active.Signal(syscall.SIGCONT)
		active, standby = standby, active
		l.WaitSeen(t, l.Observer().Count()+500, time.Minute)
	}
	l.Stop(t)
	for _, replica := range []*relaytest.Process{active, standby} {
		if code := replica.Terminate(t); code != 0 {
			t.Errorf("SIGTERM ended a replica with exit code %d, want 0", code)
		}
	}
	requireAtLeastOnce(t, l, 4000)
}

// TestAtLeastOnceKilledWhileKafkaIsAway: what was received meanwhile is in
// memory only. A relay that acknowledged it would lose it, and nothing would
// halt it; that the ledger sees this is shown with one that does.
func TestAtLeastOnceKilledWhileKafkaIsAway(t *testing.T) {
	t.Parallel()
	const file = "cdc/progress.go"
	naive := map[string]string{file: relaytest.ReplaceOnce(t, file,
		"\tnext := min(p.recorded, p.received)\n\tif owedFrom != 0 {\n",
		"\tnext := p.received\n\tif false {\n")}
	t.Run("a sound relay loses nothing", func(t *testing.T) {
		t.Parallel()
		requireAtLeastOnce(t, killedWhileKafkaIsAway(t, relaytest.Build(t), false), 500)
	})
	t.Run("a relay that acknowledges what it received loses rows", func(t *testing.T) {
		t.Parallel()
		report := killedWhileKafkaIsAway(t, relaytest.BuildOverlay(t, naive), true).Report(t)
		if report.Count(ledger.Loss) == 0 {
			t.Fatalf("the ledger shows no loss: %s", &report)
		}
		for _, kind := range report.Kinds() {
			if kind != ledger.Loss && kind != ledger.Prefix && kind != ledger.AckAhead {
				t.Errorf("the ledger shows %s, which does not follow from what is broken", kind)
			}
		}
	})
}

// killedWhileKafkaIsAway kills the relay when it had time to acknowledge, or when
// it did acknowledge, rows that cannot be in Kafka.
func killedWhileKafkaIsAway(t *testing.T, binary string, acknowledges bool) *ledger.Ledger {
	t.Helper()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		// A status is due four times within the timeout.
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"wal_sender_timeout": "4s"}}),
		Kafka:    cdctest.StartKafka(t), Binary: binary, Extra: repeating,
	})
	cfg := ledger.Config{AtLeastOnce: true, RowsPerSecond: 300, Seed: cdctest.Seed(t)}
	if acknowledges {
		cfg.Patience = 5 * time.Second // what is lost is waited for in vain
	}
	l := e.Watch(t, cfg)
	relay := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, 200, time.Minute)
	e.Kafka.Stop(t)
	if acknowledges {
		awaitAcknowledged(t, e, l)
	} else {
		cdctest.Pause(t, 3*time.Second)
	}
	if !relay.Kill() {
		t.Fatalf("the relay ended by itself: %v", relay.Err())
	}
	e.Kafka.Start(t)
	l.WaitSeen(t, l.Observer().Count()+200, time.Minute)
	l.Stop(t)
	relay.Stop(t)
	return l
}

// awaitAcknowledged waits until the slot was told of rows that are written now.
func awaitAcknowledged(t *testing.T, e *relaytest.Environment, l *ledger.Ledger) {
	t.Helper()
	conn := e.Postgres.Connect(t, e.Database)
	rows, end, began := l.Counts().Rows.Load()+100, int64(0), time.Now()
	for ; end == 0 || slotOf(t, conn, e.Slot).confirmed < end; cdctest.Pause(t, 20*time.Millisecond) {
		if end == 0 && l.Counts().Rows.Load() >= rows {
			end = slotOf(t, conn, e.Slot).current
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the relay has not acknowledged %d in a minute", end)
		}
	}
}

// TestAtLeastOnceFailpoints kills the relay where its two sides know different
// things: rows sent and not answered for, answered for and not acknowledged to
// the slot, and right before and behind that acknowledgement.
func TestAtLeastOnceFailpoints(t *testing.T) {
	t.Parallel()
	binary := relaytest.Build(t, "failpoints")
	for _, name := range []string{"publish.produced", "publish.flushed", "status.before", "status.after"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := environment(t, binary, repeating)
			l := e.Watch(t, ledger.Config{AtLeastOnce: true, RowsPerSecond: 300, Seed: cdctest.Seed(t)})
			if !diesAt(t, e, name, 3, time.Minute) { // each comes as long as it streams
				t.Fatalf("the relay never came to the fail-point %s", name)
			}
			relay := relaytest.Supervise(t, e.Options())
			l.WaitSeen(t, l.Observer().Count()+50, time.Minute)
			l.Stop(t)
			relay.Stop(t)
			requireAtLeastOnce(t, l, 50)
		})
	}
}
