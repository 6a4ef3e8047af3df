package ledger_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// killing says how a relay is killed under load.
type killing struct {
	kills         int
	rows          int // at least
	rowsPerSecond float64
}

// underLoad is as much as `make test` has time for, and more where the broker
// is a real one.
func underLoad(t *testing.T) killing {
	if cdctest.SharedKafka(t).Real() {
		return killing{kills: 20, rows: 100_000, rowsPerSecond: 6000}
	}
	return killing{kills: 8, rows: 20_000, rowsPerSecond: 3000}
}

// run kills the relay at random times, each time after it did some work, until
// both the kills and the rows are reached; then it lets everything settle.
func (k killing) run(t *testing.T, e *relaytest.Environment, cfg ledger.Config) *ledger.Ledger {
	t.Helper()
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	l := e.Watch(t, cfg)
	relay := relaytest.Supervise(t, e.Options())
	for life := range k.kills {
		waitLife(t, relay, life+1)
		l.WaitSeen(t, l.Observer().Count()+1, time.Minute)
		cdctest.Pause(t, time.Duration(rng.IntN(2000))*time.Millisecond)
		if !relay.Kill() {
			t.Fatalf("the relay ended by itself: %v", relay.Err())
		}
	}
	l.WaitSeen(t, l.Observer().Count()+1, time.Minute) // the life after the last kill
	for l.Counts().Rows.Load() < int64(k.rows) {
		cdctest.Pause(t, 50*time.Millisecond)
	}
	l.Stop(t)
	relay.Stop(t)
	if lives := relay.Lives(); lives <= k.kills {
		t.Errorf("the relay lived %d times, which is not more than it was killed", lives)
	}
	return l
}

func waitLife(t *testing.T, relay *relaytest.Supervisor, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := relay.WaitLife(ctx, n); err != nil {
		t.Fatalf("life %d of the relay: %v", n, err)
	}
}

func TestLedgerUnderKills(t *testing.T) {
	t.Parallel()
	k := underLoad(t)
	e := environment(t, relaytest.Build(t), "batch: {max_rows: 4000, max_bytes: 4MiB}")
	l := k.run(t, e, ledger.Config{RowsPerSecond: k.rowsPerSecond, BigTransactionRows: 3000, Seed: cdctest.Seed(t)})
	l.RequireExact(t, k.rows)
	requireProducers(t, l, 2)
}

// TestLedgerUnderKillsWithSmallBatches makes database transactions larger than
// a batch, so that kills also hit a transaction of which Kafka has a part. It
// uses one transactional id for everything.
func TestLedgerUnderKillsWithSmallBatches(t *testing.T) {
	t.Parallel()
	k := killing{kills: 5, rows: 5000, rowsPerSecond: 3000}
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t),
		Extra: "batch: {max_rows: 100}", TransactionRing: 1,
	})
	l := k.run(t, e, ledger.Config{RowsPerSecond: k.rowsPerSecond, BigTransactionRows: 1500, MayCutRows: 100, Seed: cdctest.Seed(t)})
	l.RequireExact(t, k.rows)
	requireProducers(t, l, 1)
}

// TestLedgerUnderKillsWithARing lets transactional ids take turns, so that on a
// real broker the next transaction begins before the markers of the last one.
func TestLedgerUnderKillsWithARing(t *testing.T) {
	t.Parallel()
	k := killing{kills: 4, rows: 4000, rowsPerSecond: 3000}
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t), TransactionRing: 4,
	})
	l := k.run(t, e, ledger.Config{RowsPerSecond: k.rowsPerSecond, Seed: cdctest.Seed(t)})
	l.RequireExact(t, k.rows)
	requireProducers(t, l, 4)
}

// requireProducers demands that ids of a ring of that size were used, in all lives
// with the same producer ids. Of a larger ring all are used only where three
// transactions are done in 30 ms (kafka.markersWritten).
func requireProducers(t *testing.T, l *ledger.Ledger, ring int) {
	t.Helper()
	producers := map[int64]bool{}
	for _, record := range l.Observer().Seen() {
		producers[record.ProducerID] = true
	}
	if n := len(producers); n < min(ring, 2) || n > ring {
		t.Errorf("%d producer ids were used, by a ring of %d", n, ring)
	}
}
