package payment_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/payment"
	"github.com/cdc-relay/cdc-relay/sql"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// bed is a service in a database of its own, connected as payment_app, behind a
// real HTTP server.
type bed struct {
	url      string
	database string
	super    *pgx.Conn // to look and to interfere
	app      *pgxpool.Pool
	service  *payment.Service
	registry *prometheus.Registry
	log      *bytes.Buffer // to be read after the requests
	contract validator.Validator
}

func migrateConfig(t testing.TB, dsn string) payment.MigrateConfig {
	t.Helper()
	outboxSQL, err := sql.Outbox(sql.DefaultTable)
	if err != nil {
		t.Fatal(err)
	}
	rolesSQL, err := sql.Roles(sql.DefaultTable)
	if err != nil {
		t.Fatal(err)
	}
	return payment.MigrateConfig{DSN: dsn, OutboxSQL: outboxSQL, RolesSQL: rolesSQL}
}

func contractOf(t testing.TB) validator.Validator {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	contract, problems := validator.NewValidator(document, config.WithFormatAssertions())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	t.Cleanup(contract.Release)
	return contract
}

// newBed starts a service; change may set what differs from the defaults.
func newBed(t testing.TB, change func(*payment.Config, *payment.HandlerConfig)) *bed {
	t.Helper()
	postgres := cdctest.SharedPostgres(t)
	b := &bed{database: postgres.Database(t), registry: prometheus.NewRegistry(), log: &bytes.Buffer{}, contract: contractOf(t)}
	if _, err := payment.MigrateUp(t.Context(), migrateConfig(t, postgres.DSN(b.database, "postgres"))); err != nil {
		t.Fatal(err)
	}
	b.super = postgres.Connect(t, b.database)
	poolConfig, err := pgxpool.ParseConfig(postgres.DSN(b.database, "payment_app"))
	if err != nil {
		t.Fatal(err)
	}
	poolConfig.MaxConns = 16
	if b.app, err = pgxpool.NewWithConfig(t.Context(), poolConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.app.Close)
	cfg := payment.Config{
		Pool: b.app, Registerer: b.registry, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		LockTimeout: time.Minute, RequestTimeout: 2 * time.Minute, // longer than a test needs for a look, on a machine however slow
	}
	var handlerConfig payment.HandlerConfig
	if change != nil {
		change(&cfg, &handlerConfig)
	}
	if b.service, err = payment.New(cfg); err != nil {
		t.Fatal(err)
	}
	handlerConfig.Service = b.service
	handler, err := payment.NewHandler(handlerConfig)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, r.body) }

// value reads the body.
func value[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	return v
}

// send makes a request and returns the answer. Every answer has to keep the
// contract of openapi.yaml. Headers are name and value in turn.
func (b *bed) send(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed && !strings.HasPrefix(path, "/nowhere") {
		response.Body = io.NopCloser(bytes.NewReader(text))
		if ok, problems := b.contract.ValidateHttpResponse(request, response); !ok {
			for _, p := range problems {
				t.Errorf("%s %s %d %s: %s %s %v", method, path, response.StatusCode, text, p.Message, p.Reason, p.SchemaValidationErrors)
			}
		}
	}
	return reply{status: response.StatusCode, header: response.Header, body: text}
}

// The bodies as a client sees them.
type paid struct {
	ID            uuid.UUID     `json:"id"`
	ReservationID uuid.UUID     `json:"reservation_id"`
	UserID        uuid.UUID     `json:"user_id"`
	Status        string        `json:"status"`
	Amount        payment.Money `json:"amount"`
	Failure       *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"failure"`
	ExecutedAt time.Time `json:"executed_at"`
	EventID    uuid.UUID `json:"event_id"`
}

func (p paid) outcome() string {
	if p.Failure != nil {
		return p.Status + " " + p.Failure.Code
	}
	return p.Status
}

type created struct {
	ID uuid.UUID `json:"id"`
}

type problem struct {
	Type      string `json:"type"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Pointer   string `json:"pointer"`
		Parameter string `json:"parameter"`
		Code      string `json:"code"`
	} `json:"errors"`
}

func (b *bed) user(t testing.TB, balance int64) uuid.UUID {
	t.Helper()
	r := b.send(t, "POST", "/v1/users", fmt.Sprintf(`{"balance": {"value": %d, "currency": "KRW"}}`, balance))
	if r.status != http.StatusCreated {
		t.Fatal(r)
	}
	return value[created](t, r).ID
}

func (b *bed) reservation(t testing.TB, user uuid.UUID, price int64) uuid.UUID {
	t.Helper()
	r := b.send(t, "POST", "/v1/reservations", fmt.Sprintf(`{"user_id": %q, "seat": "A-12", "price": {"value": %d, "currency": "KRW"}}`, user, price))
	if r.status != http.StatusCreated {
		t.Fatal(r)
	}
	return value[created](t, r).ID
}

func payBody(user uuid.UUID, reservations ...uuid.UUID) string {
	body, err := json.Marshal(map[string]any{"user_id": user, "reservation_ids": reservations})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// pay pays with a new key and returns the payments.
func (b *bed) pay(t testing.TB, user uuid.UUID, reservations ...uuid.UUID) []paid {
	t.Helper()
	r := b.send(t, "POST", "/v1/payments", payBody(user, reservations...), "Idempotency-Key", uuid.NewString())
	if r.status != http.StatusCreated {
		t.Fatal(r)
	}
	return paymentsOf(t, r)
}

func paymentsOf(t testing.TB, r reply) []paid {
	t.Helper()
	return value[struct {
		Payments []paid `json:"payments"`
	}](t, r).Payments
}

func outcomes(payments []paid) (texts []string) {
	for _, p := range payments {
		texts = append(texts, p.outcome())
	}
	return texts
}

func (b *bed) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := b.super.Exec(context.WithoutCancel(t.Context()), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// scan reads one value as superuser.
func scan[T any](t testing.TB, b *bed, query string, args ...any) (v T) {
	t.Helper()
	if err := b.super.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// counters returns the values of counters as name{label=value,...}.
func (b *bed) counters(t testing.TB, names ...string) map[string]float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		if !slices.Contains(names, family.GetName()) {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			values[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = metric.GetCounter().GetValue()
		}
	}
	return values
}

// holdUsers locks all users until release, so that requests stand still there.
func (b *bed) holdUsers(t testing.TB) (release func()) {
	t.Helper()
	tx, err := b.super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM payment.users FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitLockWaits returns when exactly n requests wait for a lock.
func (b *bed) awaitLockWaits(t testing.TB, n int) {
	t.Helper()
	const waits = `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
	for deadline := time.Now().Add(30 * time.Second); ; {
		b.exec(t, `SELECT pg_stat_clear_snapshot()`) // a transaction sees the first look for ever
		got := scan[int](t, b, waits)
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait for a lock, want %d", got, n)
		}
	}
}
