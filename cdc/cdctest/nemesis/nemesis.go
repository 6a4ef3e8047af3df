package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// Config says what happens to whom.
type Config struct {
	Binary string // the relay
	// Clock says that Binary was made by BuildWithClock; else no clock jumps.
	Clock bool
	// Postgres and Kafka are servers of the test's own; they are stopped, killed
	// and started. SenderTimeout is the wal_sender_timeout of Postgres.
	Postgres *cdctest.Postgres
	Kafka    *cdctest.Kafka
	// The run ends when Duration is over and every kind of fault came at least
	// AtLeast times.
	Duration time.Duration
	AtLeast  int
	Seed     uint64
	// Only names the kinds of faults; empty is all that the broker can stand.
	Only []string
}

// Settings are those of the server: a walsender that hears nothing ends soon,
// a crash goes far back, and large transactions are spilled.
func Settings() map[string]string {
	return map[string]string{
		"wal_sender_timeout":        "3s",
		"checkpoint_timeout":        "1h",
		"logical_decoding_work_mem": "64kB",
	}
}

// Result is what a run was.
type Result struct {
	Report ledger.Report
	Counts map[string]int // faults by kind
	Table  string         // for people
	// Prepared is how many transactions were committed in two phases.
	Prepared int64
}

// patience bounds the wait for an event after a fault; long enough for a
// transaction timeout on top of everything.
const patience = 90 * time.Second

// load is small enough for two cores, and for a run of hours to be judged.
const (
	rowsPerSecond      = 600
	bigTransactionRows = 3000
	maxBatchRows       = 1000 // so that large transactions are cut
	mayCutRows         = 60   // a relay whose transactions time out halves its batches
)

// replicas of the relay.
const replicas = 2

// world is everything in one run.
type world struct {
	Config
	env        *relaytest.Environment
	toPostgres *chaosproxy.Proxy
	toKafka    *chaosproxy.Proxy
	relays     [replicas]*relaytest.Supervisor
	clocks     [replicas]clock
	kills      [replicas]int
	ledger     *ledger.Ledger
	rng        *rand.Rand // of the faults; only touched by the test's goroutine
	probes     int64
	probe      string
}

// Run lets faults happen for the configured time, lets everything settle and
// judges. A relay that gives up, or does not come back, fails the test.
func Run(t testing.TB, cfg Config) Result {
	t.Helper()
	w := newWorld(t, cfg)
	times := newRecoveries()
	w.await(t, time.Now(), "the start")
	w.harass(t, times)
	w.await(t, time.Now(), "everything")
	w.ledger.Stop(t)
	for i, relay := range w.relays {
		relay.Stop(t)
		// Whatever fails, a relay starts again by itself, inside its process.
		if lives := relay.Lives(); lives != w.kills[i]+1 {
			t.Errorf("replica %d was killed %d times, but lived %d times", i, w.kills[i], lives)
		}
	}
	result := Result{Report: w.ledger.Report(t), Counts: times.counts, Table: times.table(w.kindNames()), Prepared: w.ledger.Counts().Prepared.Load()}
	t.Logf("recovery, seed %d:\n%s", cfg.Seed, result.Table)
	return result
}

// harass injects faults until there were enough.
func (w *world) harass(t testing.TB, times *recoveries) {
	t.Helper()
	kinds := deck[fault]{rng: w.rng, cards: w.faults()}
	for ends := time.Now().Add(w.Duration); time.Now().Before(ends) || times.fewest(w.kindNames()) < w.AtLeast; {
		f := kinds.draw()
		began := time.Now()
		over := f.inject(t, w)
		times.counts[f.name]++
		took := time.Since(began).Round(time.Millisecond)
		if w.rng.IntN(4) == 0 {
			t.Logf("%s: %s, and the next one at once", f.name, took)
			continue
		}
		recovery := w.await(t, over, f.name)
		times.measured(f.name, recovery)
		t.Logf("%s: %s, back after %s", f.name, took, recovery.Round(time.Millisecond))
		cdctest.Pause(t, time.Duration(w.rng.IntN(1500))*time.Millisecond)
	}
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := &world{Config: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), probe: "probe-" + uuid.NewString()[:8]}
	w.env = relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cfg.Postgres, Kafka: cfg.Kafka, Binary: cfg.Binary, Extra: fmt.Sprintf("batch: {max_rows: %d}", maxBatchRows),
	})
	var err error
	if w.toPostgres, err = chaosproxy.NewPostgres(fmt.Sprintf("127.0.0.1:%d", cfg.Postgres.Port())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeProxy(t, w.toPostgres) })
	if w.toKafka, err = chaosproxy.NewKafka(cfg.Kafka.Brokers()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeProxy(t, w.toKafka) })
	w.ledger = w.env.Watch(t, ledger.Config{
		Writers: 6, RowsPerSecond: rowsPerSecond, BigTransactionRows: bigTransactionRows, Prepared: true,
		MayCutRows: mayCutRows, Seed: cfg.Seed, Patience: patience,
	})
	for i := range w.relays {
		w.clocks[i] = newClock(t)
		options := w.env.Options()
		options.ConfigPath, options.Admin = w.replicaConfig(t, i)
		options.Env = []string{w.clocks[i].environment()}
		w.relays[i] = relaytest.Supervise(t, options)
	}
	return w
}

func closeProxy(t testing.TB, p *chaosproxy.Proxy) {
	if err := p.Close(); err != nil {
		t.Errorf("close proxy: %v", err)
	}
}

// replicaConfig writes the environment's configuration with the proxies in the
// place of the servers. Transactions time out soon enough for a paused relay to
// meet that.
func (w *world) replicaConfig(t testing.TB, i int) (path, admin string) {
	t.Helper()
	admin = cdctest.Address(t)
	replace := []string{
		w.env.AdminAddr, admin,
		fmt.Sprintf("127.0.0.1:%d", w.Postgres.Port()), w.toPostgres.Addresses()[0],
		"  replication: 1\n", "  replication: 1\n  transaction_timeout: 6s\n",
	}
	for b, broker := range w.Kafka.Brokers() {
		replace = append(replace, broker, w.toKafka.Addresses()[b])
	}
	path = filepath.Join(t.TempDir(), fmt.Sprintf("replica-%d.yaml", i))
	config := strings.NewReplacer(replace...).Replace(w.env.Config())
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, admin
}

// await commits an event and returns how long after the given time it was seen.
func (w *world) await(t testing.TB, since time.Time, after string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id, err := w.commitProbe(ctx)
	if err == nil {
		err = w.ledger.Observer().Wait(ctx, func() bool { return w.ledger.Observer().Saw(id) })
	}
	w.requireRelays(t)
	if err != nil {
		t.Fatalf("after %s nothing new was seen for %s: %v", after, patience, err)
	}
	return time.Since(since)
}

// requireRelays fails the test when a relay gave up.
func (w *world) requireRelays(t testing.TB) {
	t.Helper()
	for i, relay := range w.relays {
		if err := relay.Err(); err != nil {
			t.Fatalf("replica %d: %v", i, err)
		}
	}
}

// commitProbe commits one more row as the ledger's writers do, under a key of
// its own.
func (w *world) commitProbe(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, w.Postgres.DSN(w.env.Database, "postgres"))
	if err != nil {
		return "", fmt.Errorf("connect for a probe: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	id := uuid.Must(uuid.NewV7()).String()
	if err := ledger.InsertOne(ctx, conn, w.env.Topic, id, w.probe, w.probes+1); err != nil {
		return "", err
	}
	w.probes++
	w.ledger.Counts().Rows.Add(1) // the ledger waits for as many
	return id, nil
}
