package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// output collects what a running command writes.
type output struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// command runs one command line to its end.
func command(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err output
	code = Main(args, &out, &err, env, make(chan os.Signal))
	return code, out.String(), err.String()
}

// running is a `payment-api serve` in this process.
type running struct {
	api, admin string // base URLs
	stderr     *output
	signals    chan os.Signal
	exit       chan int
}

func serve(t testing.TB, env []string, args ...string) *running {
	t.Helper()
	r := &running{stderr: &output{}, signals: make(chan os.Signal, 2), exit: make(chan int, 1)}
	args = append([]string{
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
		"--lock-timeout", "1m", "--request-timeout", "2m", // longer than a test needs for a look, on a machine however slow
	}, args...)
	go func() { r.exit <- Main(args, io.Discard, r.stderr, env, r.signals) }()
	deadline := time.Now().Add(30 * time.Second)
	for r.api == "" {
		for line := range strings.Lines(r.stderr.String()) {
			var fields map[string]any
			if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == "payment-api serves" {
				r.api, r.admin = "http://"+field(t, line, keyAddress), "http://"+field(t, line, keyAdminAddress)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not serve: %s", r.stderr)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Cleanup(func() {
		select {
		case r.signals <- syscall.SIGTERM:
		default:
		}
		select {
		case code := <-r.exit:
			r.exit <- code
		case <-time.After(30 * time.Second):
			t.Error("it does not stop")
		}
	})
	return r
}

// client has no kept connections, which would outlive the test.
func client() *http.Client { return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} }

func call(t testing.TB, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", "key-of-"+t.Name())
	response, err := client().Do(request)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(text)
}

// field reads a field of a JSON object.
func field(t testing.TB, body, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	text, ok := fields[name].(string)
	if !ok {
		t.Fatalf("%s has no %s", body, name)
	}
	return text
}

func migrated(t testing.TB) (postgres *cdctest.Postgres, database string) {
	t.Helper()
	postgres = cdctest.SharedPostgres(t)
	database = postgres.Database(t)
	if code, _, stderr := command(t, []string{envDSN + "=" + postgres.DSN(database, "postgres")}, "migrate", "up"); code != exitFine {
		t.Fatal(stderr)
	}
	return postgres, database
}

func TestFromAnEmptyDatabaseToAPayment(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	database := postgres.Database(t)
	owner := []string{envDSN + "=" + postgres.DSN(database, "postgres")}
	if code, stdout, _ := command(t, owner, "migrate", "status"); code != exitPending || strings.Count(stdout, "pending") != 2 {
		t.Errorf("status of an empty database: exit %d, %s", code, stdout)
	}
	if code, stdout, stderr := command(t, owner, "migrate", "up"); code != exitFine || !strings.Contains(stdout, "applied 2 002_outbox") {
		t.Fatalf("up: exit %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := command(t, owner, "migrate", "up"); code != exitFine || stdout != "nothing to do\n" {
		t.Errorf("up again: exit %d, %s", code, stdout)
	}
	if code, stdout, _ := command(t, owner, "migrate", "status", "-o", "json"); code != exitFine || !strings.Contains(stdout, `"name": "001_payments.sql"`) {
		t.Errorf("status: exit %d, %s", code, stdout)
	}
	dsnFile := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsnFile, []byte(postgres.DSN(database, "payment_app")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, []string{"PAYMENT_API_DSN_FILE=" + dsnFile})
	_, user := call(t, "POST", r.api+"/v1/users", `{"balance": {"value": 500, "currency": "KRW"}}`)
	userID := field(t, user, "id")
	status, reservation := call(t, "POST", r.api+"/v1/reservations", `{"user_id": "`+userID+`", "seat": "A-1", "price": {"value": 500, "currency": "KRW"}}`)
	if status != http.StatusUnprocessableEntity {
		t.Errorf("one key for two requests: got %d %s", status, reservation)
	}
	awaitReadyz(t, r, http.StatusOK, "ok")
	for path, want := range map[string]string{"/livez": "ok", "/metrics": "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_response_status_code=\"201\",http_route=\"/v1/users\"} 1"} {
		if status, body := call(t, "GET", r.admin+path, ""); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	r.signals <- syscall.SIGTERM
	if code := <-r.exit; code != exitFine {
		t.Errorf("exit %d: %s", code, r.stderr)
	} else {
		r.exit <- code
	}
}

func TestASignalLetsRequestsInFlightEnd(t *testing.T) {
	postgres, database := migrated(t)
	r := serve(t, []string{envDSN + "=" + postgres.DSN(database, "payment_app")})
	_, user := call(t, "POST", r.api+"/v1/users", `{}`)
	super := postgres.Connect(t, database)
	tx, err := super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM payment.users FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		request, _ := http.NewRequest("POST", r.api+"/v1/users/"+field(t, user, "id")+"/charges", strings.NewReader(`{"amount": {"value": 5, "currency": "KRW"}}`))
		request.Header.Set("Content-Type", "application/json")
		response, err := client().Do(request)
		if err != nil {
			answered <- 0
			return
		}
		_ = response.Body.Close()
		answered <- response.StatusCode
	}()
	awaitLockWait(t, tx)
	r.signals <- syscall.SIGTERM
	await(t, "/readyz fails", func() bool {
		status, _ := call(t, "GET", r.admin+"/readyz", "")
		return status == http.StatusServiceUnavailable
	})
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status := <-answered; status != http.StatusCreated {
		t.Errorf("the request in flight was answered %d", status)
	}
	if code := <-r.exit; code != exitFine {
		t.Errorf("exit %d: %s", code, r.stderr)
	} else {
		r.exit <- code
	}
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %s", what)
		}
	}
}

// awaitReadyz returns when the probe answers so: the one before may have met a
// database that took too long.
func awaitReadyz(t testing.TB, r *running, want int, text string) {
	t.Helper()
	await(t, fmt.Sprintf("/readyz answers %d with %s", want, text), func() bool {
		status, body := call(t, "GET", r.admin+"/readyz", "")
		return status == want && strings.Contains(body, text)
	})
}

// awaitLockWait returns when a request waits for a lock that tx holds.
func awaitLockWait(t testing.TB, tx pgx.Tx) {
	t.Helper()
	await(t, "the request waits for the lock", func() bool {
		if _, err := tx.Exec(t.Context(), `SELECT pg_stat_clear_snapshot()`); err != nil { // a transaction sees the first look for ever
			t.Fatal(err)
		}
		var waiting bool
		err := tx.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
		return err == nil && waiting
	})
}

func TestItServesWhilePostgresIsAway(t *testing.T) {
	r := serve(t, []string{envDSN + "=postgres://payment_app@127.0.0.1:1/app?sslmode=disable"})
	if status, body := call(t, "GET", r.admin+"/readyz", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "does not answer") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, body := call(t, "POST", r.api+"/v1/users", `{}`); status != http.StatusServiceUnavailable || field(t, body, "code") != "unavailable" {
		t.Errorf("a request: %d %s", status, body)
	}
	if status, body := call(t, "GET", r.admin+"/livez", ""); status != http.StatusOK {
		t.Errorf("/livez: %d %s", status, body)
	}
}

func TestReadinessNeedsTheTables(t *testing.T) {
	postgres, _ := migrated(t) // makes the role
	empty := postgres.Database(t)
	r := serve(t, []string{envDSN + "=" + postgres.DSN(empty, "payment_app")})
	awaitReadyz(t, r, http.StatusServiceUnavailable, "payment-api migrate up")
}

func TestWrongSettingsAreToldAtOnce(t *testing.T) {
	const canary = "canary-5ecret"
	tests := []struct {
		name string
		env  []string
		args []string
		want []string
	}{
		{"nothing set", nil, nil, []string{"--dsn-file", "PAYMENT_API_DSN"}},
		{"several", []string{envDSN + "=postgres://u@h/d", "PAYMENT_API_LOCK_TIMEOUT=soon", "PAYMENT_API_LOG_LEVEL=loud"}, []string{"--max-connections", "0", "--listen", "x"},
			[]string{"PAYMENT_API_LOCK_TIMEOUT", "--log-level", "--max-connections", "--listen"}},
		{"an unreadable connection string", []string{envDSN + "=postgres://u:" + canary + "@h:port/d"}, nil, []string{"connection string cannot be read"}},
		{"a relay without scheme", []string{envDSN + "=postgres://u:" + canary + "@h/d"}, []string{"--relay-url", "localhost"}, []string{"--relay-url"}},
		{"an unknown flag", nil, []string{"--dsn", "x"}, []string{"unknown flag"}},
		{"an unknown command", nil, []string{"server"}, []string{"unknown command"}},
		{"an unknown output", nil, []string{"version", "-o", "xml"}, []string{"text or json"}},
		{"no key file", []string{envDSN + "=postgres://u@h/d"}, []string{"--api-keys-file", "/nonexistent"}, []string{"--api-keys-file"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := command(t, test.env, test.args...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, stdout %q", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in %s", want, stderr)
				}
			}
			if strings.Contains(stderr, canary) {
				t.Errorf("the password is in %s", stderr)
			}
		})
	}
}

func TestWhatAServerSaysNamesNoPassword(t *testing.T) {
	const canary = "canary-5ecret"
	env := []string{envDSN + "=postgres://u:" + canary + "@127.0.0.1:1/d?sslmode=disable"}
	code, _, stderr := command(t, env, "migrate", "up")
	if code != exitFailure || strings.Contains(stderr, canary) {
		t.Errorf("exit %d: %s", code, stderr)
	}
	r := serve(t, append(env, "PAYMENT_API_LSITEN=x"))
	call(t, "POST", r.api+"/v1/users", `{}`)
	if text := r.stderr.String(); strings.Contains(text, canary) || !strings.Contains(text, "PAYMENT_API_LSITEN is no setting") {
		t.Errorf("got %s", text)
	}
}

func TestVersionAndHelp(t *testing.T) {
	if code, stdout, _ := command(t, nil, "version", "-o", "json"); code != exitFine || field(t, stdout, "go") == "" {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if code, stdout, _ := command(t, nil, "--help"); code != exitFine || !strings.Contains(stdout, "migrate") || !strings.Contains(stdout, "--dsn-file") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

// The point of the outbox: the application speaks to its database alone.
func TestNoKafkaIsLinked(t *testing.T) {
	text, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "github.com/jackc/pgx/v5/pgxpool\n") {
		t.Fatalf("not the packages that are linked: %s", text)
	}
	for pkg := range strings.Lines(string(text)) {
		for _, word := range []string{"kafka", "franz-go", "sarama", "/cdc-relay/cdc\n", "cdctest"} {
			if strings.Contains(strings.ToLower(pkg), word) {
				t.Errorf("%s is linked", strings.TrimSpace(pkg))
			}
		}
	}
}

func TestServersBoundEveryPhaseOfAConnection(t *testing.T) {
	postgres, database := migrated(t)
	r := serve(t, []string{envDSN + "=" + postgres.DSN(database, "payment_app")})
	for _, base := range []string{r.api + "/openapi.json", r.admin + "/livez"} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", base, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Large", strings.Repeat("x", 64<<10))
		response, err := client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: a large header was answered %d", base, response.StatusCode)
		}
	}
	s, err := listen(t.Context(), "listen", "127.0.0.1:0", http.NotFoundHandler(), time.Second, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	for name, timeout := range map[string]time.Duration{"header": s.http.ReadHeaderTimeout, "body": s.http.ReadTimeout, "answer": s.http.WriteTimeout, "idle": s.http.IdleTimeout} {
		if timeout <= 0 {
			t.Errorf("the %s has no limit", name)
		}
	}
}

// What is still not answered at the end of the drain timeout is cut and rolled
// back.
func TestTheDrainHasAnEnd(t *testing.T) {
	postgres, database := migrated(t)
	r := serve(t, []string{envDSN + "=" + postgres.DSN(database, "payment_app")}, "--drain-timeout", "50ms")
	_, user := call(t, "POST", r.api+"/v1/users", `{}`)
	super := postgres.Connect(t, database)
	tx, err := super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM payment.users FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	cut := make(chan error, 1)
	go func() {
		request, _ := http.NewRequest("POST", r.api+"/v1/users/"+field(t, user, "id")+"/charges", strings.NewReader(`{"amount": {"value": 5, "currency": "KRW"}}`))
		request.Header.Set("Content-Type", "application/json")
		response, err := client().Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		cut <- err
	}()
	awaitLockWait(t, tx)
	r.signals <- syscall.SIGTERM
	if err := <-cut; err != nil {
		t.Log(err) // or an answer was on its way; the charge is what counts
	}
	if code := <-r.exit; code != exitFailure || !strings.Contains(r.stderr.String(), "are cut") {
		t.Errorf("exit %d: %s", code, r.stderr)
	} else {
		r.exit <- code
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	var balance int64
	if err := super.QueryRow(t.Context(), `SELECT balance FROM payment.users`).Scan(&balance); err != nil || balance != 0 {
		t.Errorf("the balance is %d, %v: want 0", balance, err)
	}
}
