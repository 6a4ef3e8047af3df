package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// awaitState waits until the run shows one of the states.
func (c *command) awaitState(t testing.TB, states ...cdc.State) {
	t.Helper()
	address := c.address(t)
	eventually(t, fmt.Sprintf("state %v", states), func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && slices.Contains(states, report.State)
	})
}

// newEnvironment is an environment on the shared servers. Its role is one that
// other tests make too.
func newEnvironment(t testing.TB) *relaytest.Environment {
	t.Helper()
	cfg := relaytest.EnvironmentConfig{Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t)}
	rolesMu.Lock()
	defer rolesMu.Unlock()
	return relaytest.NewEnvironment(t, cfg)
}

// edited is the relay's configuration once more, with texts replaced in pairs.
func (r *testRelay) edited(t testing.TB, replace ...string) (path string) {
	t.Helper()
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, strings.NewReplacer(replace...).Replace(string(text)))
}

// insertLSN is where the next WAL record goes.
func (r *testRelay) insertLSN(t testing.TB) cdc.LSN {
	t.Helper()
	var text string
	if err := r.db.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// TestStopsWhileKafkaIsSilent asks a relay to stop whose brokers no longer
// answer while it has rows to publish.
func TestStopsWhileKafkaIsSilent(t *testing.T) {
	t.Parallel()
	const drain, margin = 2 * time.Second, 10 * time.Second // a transaction is given up after 20 s
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	proxy, err := chaosproxy.NewKafka(r.kafka.Brokers()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	config := r.edited(t, strings.Join(r.kafka.Brokers(), ", "), strings.Join(proxy.Addresses(), ", "))
	run := start(t, nil, "run", "--config", config, "--set", "drain_timeout="+drain.String())
	run.awaitState(t, cdc.StateStreaming)
	ids := r.insert(t, 3)
	r.wantPublished(t, ids)

	proxy.SetLink(chaosproxy.Link{StopToServer: true, StopToClient: true})
	ids = append(ids, r.insert(t, 20)...)
	address := run.address(t)
	eventually(t, "rows are owed", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && report.OwedRows != nil && *report.OwedRows >= 20 // 23 where the answer to the first EndTxn is lost too
	})
	owed := r.insertLSN(t)
	asked := time.Now()
	run.signals <- syscall.SIGTERM
	run.wantCode(t, exitFine)
	if took := time.Since(asked); took > drain+margin {
		t.Errorf("it took %s to stop, want at most %s", took, drain+margin)
	}
	if confirmed := r.confirmed(t); confirmed >= owed {
		t.Errorf("the slot was moved to %s, and rows before %s are not published", confirmed, owed)
	}
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.wantPublished(t, ids)
}

// TestTwoSlotsForOneRelay runs one relay twice by mistake, each with a slot of
// its own. They fence each other in turns; the position, which they share, keeps
// every row from being published twice.
func TestTwoSlotsForOneRelay(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	older := r.slot() + "_2"
	r.exec(t, `SELECT pg_create_logical_replication_slot('`+older+`', 'pgoutput')`)
	r.init(t)
	runs := []*command{
		start(t, nil, "run", "--config", r.config),
		start(t, nil, "run", "--config", r.config, "--set", "postgres.slot="+older),
	}
	for _, run := range runs {
		run.address(t)
	}
	fenced := func() bool {
		for _, run := range runs {
			if !strings.Contains(run.stderr.String(), "transactional ids cdc-relay."+r.name) {
				return false
			}
		}
		return true
	}
	var ids []string
	eventually(t, "each was fenced by the other", func() bool {
		ids = append(ids, r.insert(t, 2)...)
		return fenced()
	})
	runs[1].stop(t, exitFine)
	ids = append(ids, r.insert(t, 2)...)
	r.wantPublished(t, ids)
	runs[0].stop(t, exitFine)

	// A slot that passed over what is not recorded is found out.
	ids = append(ids, r.insert(t, 2)...)
	r.awaitFreeSlot(t, older)
	r.exec(t, `SELECT pg_replication_slot_advance('`+older+`', pg_current_wal_lsn())`)
	newer := execute(t, nil, "run", "--config", r.config, "--set", "postgres.slot="+older)
	newer.wantCode(t, exitHalt)
	wantIn(t, newer.stderr.String(), "slot-moved", "fix: ")
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.wantPublished(t, ids)
}

var failuresMetric = regexp.MustCompile(`(?m)^cdc_relay_failures_total\{[^}]*\} (\d+)`)

// failureCount is how often the running relay has failed.
func failureCount(t testing.TB, address string) (n int) {
	t.Helper()
	_, body, err := adminGet(t.Context(), address, "/metrics", nil, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range failuresMetric.FindAllStringSubmatch(string(body), -1) {
		count, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		n += count
	}
	return n
}

// TestRestartStormIsSlowAndQuiet lets the same start fail again and again: the
// pauses grow, and the log has a line per change of state, not per failure.
func TestRestartStormIsSlowAndQuiet(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.writeConfig(t, "postgres://postgres@127.0.0.1:1/x?sslmode=disable", "")
	began := time.Now()
	run := start(t, nil, "run", "--config", r.config)
	address := run.address(t)
	early := 0
	eventually(t, "the first second is over", func() bool {
		if time.Since(began) > time.Second {
			return true
		}
		if n := failureCount(t, address); time.Since(began) <= time.Second { // else later ones may be among them
			early = n
		}
		return false
	})
	run.awaitState(t, cdc.StateStalled)
	total, took := failureCount(t, address), time.Since(began)
	if early > 6 {
		t.Errorf("%d starts failed in the first second, want pauses that grow", early)
	}
	if total < 10 || took < 5*time.Second {
		t.Errorf("%d starts failed in %s", total, took)
	}
	var lines []string
	for line := range strings.Lines(run.stderr.String()) {
		if strings.Contains(line, "127.0.0.1:1") {
			lines = append(lines, line)
		}
	}
	if len(lines) < 1 || len(lines) > 3 {
		t.Errorf("%d failures make %d lines:\n%s", total, len(lines), strings.Join(lines, ""))
	}
	run.stop(t, exitFine)
}

// TestStarvedRelayKeepsItsSlot gives the relay one processor that collects
// garbage all the time and has to share with others.
func TestStarvedRelayKeepsItsSlot(t *testing.T) {
	t.Parallel()
	const senderTimeout = 6 * time.Second // longer than the machine stands still
	e := newEnvironment(t)
	db := e.Postgres.Connect(t, e.Database)
	if _, err := db.Exec(t.Context(), fmt.Sprintf("ALTER DATABASE %s SET wal_sender_timeout = %d", e.Database, senderTimeout.Milliseconds())); err != nil {
		t.Fatal(err)
	}
	options := e.Options()
	options.Env = []string{"GOMAXPROCS=1", "GOGC=1"}
	relay := relaytest.Start(t, options)
	relay.WaitState(t, cdc.StateStreaming, 30*time.Second)
	stop := make(chan struct{})
	var spinning sync.WaitGroup
	var busy atomic.Int64
	for range 2 {
		spinning.Go(func() {
			for spin := true; spin; {
				select {
				case <-stop:
					spin = false
				default:
					busy.Add(1)
				}
			}
		})
	}
	defer spinning.Wait()
	defer close(stop)
	walsender := func() (pid int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, e.Slot).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	pid := walsender()
	for began := time.Now(); time.Since(began) < senderTimeout+time.Second; {
		var text string
		err := db.QueryRow(t.Context(), `WITH i AS (INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload)
			SELECT $1, n::text, 't', to_jsonb(repeat('x', 200)) FROM generate_series(1, 2000) n RETURNING 1) SELECT count(*)::text FROM i`, e.Topic).Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		lsn, err := cdc.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		if published, err := relay.Published(t.Context(), lsn, 30*time.Second); err != nil || !published {
			t.Fatalf("published: %t, %v", published, err)
		}
	}
	if now := walsender(); pid == 0 || now != pid {
		t.Errorf("the slot belonged to walsender %d, now to %d", pid, now)
	}
	if code := relay.Terminate(t); code != exitFine {
		t.Errorf("exit code %d", code)
	}
}

// TestServerWithoutLogicalWALComesBack restarts the server with a wal_level with
// which it does not start while the slot exists, and corrects that.
func TestServerWithoutLogicalWALComesBack(t *testing.T) {
	t.Parallel()
	pg := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	r := newTestRelay(t, pg, cdctest.SharedKafka(t))
	r.init(t)
	run := start(t, nil, "run", "--config", r.config)
	run.awaitState(t, cdc.StateStreaming)
	ids := r.insert(t, 2)
	r.wantPublished(t, ids)
	pg.Stop(t, "fast")
	set := func(level string) {
		t.Helper()
		if err := pg.Server().Configure(map[string]string{"wal_level": level}); err != nil {
			t.Fatal(err)
		}
	}
	set("replica")
	if err := pg.Server().Start(t.Context()); err == nil {
		t.Fatal("the server starts with a slot that it cannot decode for")
	}
	eventually(t, "it retries", func() bool {
		report, err := relayReport(t.Context(), run.address(t))
		return err == nil && (report.State == cdc.StateRetrying || report.State == cdc.StateStalled) && report.Cause != nil && report.Cause.Fix != ""
	})
	set("logical")
	pg.Start(t)
	r.db = pg.Connect(t, r.database)
	ids = append(ids, r.insert(t, 2)...)
	r.wantPublished(t, ids)
	run.stop(t, exitFine)
	if !strings.Contains(run.stderr.String(), fmt.Sprint(pg.Port())) {
		t.Errorf("the log does not say which server was away:\n%s", run.stderr.String())
	}
}
