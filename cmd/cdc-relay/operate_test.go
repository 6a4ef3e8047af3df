package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// TestDayOfARelay goes through the commands around a relay that runs.
func TestDayOfARelay(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))

	// Before init, check names what is missing and status is unhealthy.
	before := execute(t, nil, "check", "--config", r.config)
	before.wantCode(t, exitUnhealthy)
	wantIn(t, before.stdout.String(), "fail", "fix: ", "does not exist")
	r.init(t)
	checked := execute(t, nil, "check", "--config", r.config, "-o", "json")
	checked.wantCode(t, exitFine)
	var findings []finding
	if err := json.Unmarshal([]byte(checked.stdout.String()), &findings); err != nil || len(findings) < 10 {
		t.Errorf("check -o json: %d findings, %v", len(findings), err)
	}
	for _, f := range findings {
		if f.Level == "warn" && (f.Why == "" || f.Fix == "") {
			t.Errorf("a warning without why or fix: %+v", f)
		}
	}
	// The test's topics have one replica, which is a warning.
	execute(t, nil, "check", "--config", r.config, "--strict").wantCode(t, exitUnhealthy)

	r.awaitFreeSlot(t, r.slot())
	idle := execute(t, nil, "status", "--config", r.config)
	idle.wantCode(t, exitUnhealthy)
	wantIn(t, idle.stdout.String(), "no running relay was reachable", "slot "+"        "+r.slot(), "the slot is not active")

	run := start(t, nil, "run", "--config", r.config)
	address := run.address(t)
	eventually(t, "streaming", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && report.State == cdc.StateStreaming
	})
	ids := r.insert(t, 5)
	var lsn string
	if err := r.db.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	execute(t, nil, "wait", "--config", r.config, "--addr", address, "--lsn", lsn).wantCode(t, exitFine)
	r.wantPublished(t, ids)

	status := execute(t, nil, "status", "--config", r.config, "--addr", address)
	status.wantCode(t, exitFine)
	wantIn(t, status.stdout.String(), "state        streaming", "lag", "recorded", "position")
	fromServers := execute(t, nil, "status", "--config", r.config, "--addr", "127.0.0.1:1", "-o", "json")
	fromServers.wantCode(t, exitFine)
	wantIn(t, fromServers.stdout.String(), `"from": "servers"`, `"active": true`, `"recorded_lsn"`)

	// A second replica is a standby and says so.
	standby := start(t, nil, "run", "--config", r.config)
	standbyAddress := standby.address(t)
	eventually(t, "standby", func() bool {
		report, err := relayReport(t.Context(), standbyAddress)
		return err == nil && report.State == cdc.StateStandby && report.Healthy
	})
	execute(t, nil, "wait", "--config", r.config, "--addr", standbyAddress, "--lsn", lsn).wantCode(t, exitFine)
	for _, probe := range []string{"/livez", "/startupz", "/readyz", "/metrics"} {
		code, _, err := adminGet(t.Context(), standbyAddress, probe, nil, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if code != http.StatusOK {
			t.Errorf("%s: HTTP %d", probe, code)
		}
	}

	// The first one stops, the second takes over.
	run.stop(t, exitFine)
	more := r.insert(t, 3)
	r.wantPublished(t, append(ids, more...))
	standby.stop(t, exitFine)
}

// TestPrintedScriptIsEnough runs what init prints and then needs no more than
// the relay's own role.
func TestPrintedScriptIsEnough(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--with-table"}, nil} {
		t.Run(strings.Join(append([]string{"init"}, args...), " "), func(t *testing.T) {
			r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
			if args == nil { // somebody else's table, with Debezium's five columns
				r.exec(t, "CREATE TABLE public.outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb)")
			}
			printed := execute(t, nil, append([]string{"init", "--config", r.config}, args...)...)
			printed.wantCode(t, exitFine)
			r.makeRoles(t, printed.stdout.String())
			r.writeConfig(t, r.postgres.DSN(r.database, "cdc_relay"), "")
			applied := execute(t, nil, "init", "--config", r.config, "--apply")
			applied.wantCode(t, exitFine)
			wantIn(t, applied.stdout.String(), "already there  publication", "created        slot")
			r.exec(t, "INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload) VALUES ('01890000-0000-7000-8000-000000000001', 'payment', 'k', 't', '{}')")
			execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
			r.wantPublished(t, []string{"01890000-0000-7000-8000-000000000001"})
		})
	}
}

// TestSecondSignalStopsAtOnce supervises work that does not heed its context.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	release, asked := make(chan struct{}), make(chan struct{})
	signals := make(chan os.Signal)
	var stderr syncBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- supervise(&stderr, signals, func(ctx context.Context) int {
			<-ctx.Done()
			close(asked)
			<-release
			return exitFine
		})
	}()
	signals <- syscall.SIGTERM
	<-asked
	select {
	case code := <-ended:
		t.Fatalf("the first signal ended it with %d", code)
	default:
	}
	signals <- syscall.SIGTERM
	if code := <-ended; code != exitForced {
		t.Errorf("exit code %d", code)
	}
	wantIn(t, stderr.String(), "terminated received, stopping in good order", "stopped at once on the second signal")
	close(release)
}

// TestSecretsAreNeverPrinted runs every command with canaries as secrets and
// looks for them in everything that comes out.
func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a"
	configs := map[string]string{
		"sound": "relay: payments\npostgres:\n  dsn: postgres://u:" + canary + "@127.0.0.1:1/db?sslmode=disable\n  admin_dsn: postgres://u:" + canary + "@127.0.0.1:1/db?sslmode=disable\n" +
			"kafka:\n  brokers: [127.0.0.1:1]\n  sasl: {mechanism: SCRAM-SHA-512, username: u, password: " + canary + "}\nrouting: {allowed_topics: [x]}\nadmin: {listen: \"127.0.0.1:0\"}\n",
		"misspelt key":     "relay: payments\npostgres: {dns: \"postgres://u:" + canary + "@h/db\", slott: x}\n",
		"same line":        "relay: payments\npostgres: {dsn: \"postgres://u:" + canary + "@h/db\", slott: x, table: y}\n",
		"wrong structure":  "relay: payments\npostgres: [\"postgres://u:" + canary + "@h/db\"]\nkafka: " + canary + "\n",
		"wrong type":       "relay: payments\npostgres:\n  dsn: [" + canary + "]\n  dsn_file: {a: " + canary + "}\n",
		"wrong syntax":     "relay: payments\npostgres:\n  dsn: \"postgres://u:" + canary + "@h/db\n  slot: x\n",
		"wrong syntax 2":   "relay: payments\npostgres: {dsn: postgres://u:" + canary + "@h/db, slot: x\n",
		"wrong syntax 3":   "relay: payments\npostgres:\n dsn: a: " + canary + "\n",
		"unreadable DSN":   "relay: payments\npostgres: {dsn: \"postgres://u:" + canary + "%zz@[h/db\"}\nkafka: {brokers: [127.0.0.1:1]}\nrouting: {allowed_topics: [x]}\nadmin: {listen: \"127.0.0.1:0\"}\n",
		"unreadable DSN 2": "relay: payments\npostgres: {dsn: \"host=h passwort='" + canary + "' password='" + canary + "\"}\nkafka: {brokers: [127.0.0.1:1]}\nrouting: {allowed_topics: [x]}\nadmin: {listen: \"127.0.0.1:0\"}\n",
	}
	commands := [][]string{
		{"config", "validate"}, {"config", "show"}, {"config", "show", "-o", "json"}, {"init"},
		{"init", "--apply"}, {"status"}, {"check"}, {"check", "-o", "json"}, {"run", "--log-level", "debug"},
		{"config", "validate", "--set", "postgres.dsn=" + canary}, {"config", "validate", "--set", "postgres.dns=" + canary},
	}
	env := []string{"CDC_RELAY_POSTGRES_DNS=" + canary, "CDC_RELAY_KAFKA_SASL_PASSWORT=" + canary}
	for name, text := range configs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, text)
			for _, args := range commands {
				c := start(t, env, append(args, "--config", file)...)
				if args[0] == "run" {
					for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline) && !ended(c); {
						time.Sleep(5 * time.Millisecond)
					}
					c.signals <- syscall.SIGTERM
				}
				c.wait(t)
				if output := c.stdout.String() + c.stderr.String(); strings.Contains(output, canary) {
					t.Errorf("%v prints the secret:\n%s", args, output)
				}
			}
		})
	}
}
