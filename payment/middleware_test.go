package payment

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// newAPI has routes of its own and no database behind it.
func newAPI(t *testing.T, log *bytes.Buffer, routes ...route) (*api, *prometheus.Registry) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "host=127.0.0.1 port=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	registry := prometheus.NewRegistry()
	service, err := New(Config{Pool: pool, Registerer: registry, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	a := &api{service: service, slots: make(chan struct{}, 1), mux: http.NewServeMux(), logger: service.logger}
	a.handle(routes)
	return a, registry
}

func TestAPanicIsAnAnswerAndALogEntry(t *testing.T) {
	var log bytes.Buffer
	a, _ := newAPI(t, &log, route{http.MethodGet, "/panic", func(http.ResponseWriter, *http.Request, string) error { panic("boom") }})
	for range 2 { // the slot of the first one is free again
		recorder := httptest.NewRecorder()
		a.ServeHTTP(recorder, httptest.NewRequest("GET", "/panic", nil))
		if recorder.Code != http.StatusInternalServerError || strings.Contains(recorder.Body.String(), "boom") {
			t.Errorf("got %d %s", recorder.Code, recorder.Body)
		}
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), keyRequestID+"=") {
		t.Errorf("the log has %s", &log)
	}
}

func TestAnAnswerThatHasBegunIsNotOverwritten(t *testing.T) {
	var log bytes.Buffer
	a, _ := newAPI(t, &log, route{http.MethodGet, "/late", func(w http.ResponseWriter, _ *http.Request, _ string) error {
		writeBody(w, http.StatusOK, "text/plain", []byte("begun"))
		return errors.New("too late")
	}})
	recorder := httptest.NewRecorder()
	a.ServeHTTP(recorder, httptest.NewRequest("GET", "/late", nil))
	if recorder.Code != http.StatusOK || recorder.Body.String() != "begun" || !strings.Contains(log.String(), "too late") {
		t.Errorf("got %d %s, log %s", recorder.Code, recorder.Body, &log)
	}
}

func TestMetricsHaveTheAgreedNames(t *testing.T) {
	var log bytes.Buffer
	a, registry := newAPI(t, &log, route{http.MethodGet, "/v1/{id}", func(w http.ResponseWriter, _ *http.Request, _ string) error { return writeAnswer(w, "ok") }})
	for _, request := range []*http.Request{
		httptest.NewRequest("GET", "/v1/1", nil), httptest.NewRequest("GET", "/v1/2", nil), httptest.NewRequest("BREW", "/v1/1", nil), httptest.NewRequest("GET", "/x/1", nil), httptest.NewRequest("GET", "/x/2", nil),
	} {
		a.ServeHTTP(httptest.NewRecorder(), request)
	}
	a.service.metrics.countPayments([]Payment{{Amount: Money{Value: 1, Currency: "KRW"}}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names, requests []string
	for _, family := range families {
		names = append(names, family.GetName())
		if family.GetName() != "http_server_request_duration_seconds" {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			requests = append(requests, strings.Join(labels, " "))
		}
	}
	want := []string{
		"http_server_active_requests", "http_server_request_body_size_bytes", "http_server_request_duration_seconds",
		"payments_failures_total", "payments_idempotency_total", "payments_outbox_inserted_total", "payments_processed_total", "payments_tx_duration_seconds", "payments_tx_retries_total",
		"pgxpool_acquire_wait_seconds_total", "pgxpool_acquire_waits_total", "pgxpool_acquired_connections", "pgxpool_acquires_cancelled_total", "pgxpool_acquires_total", "pgxpool_idle_connections", "pgxpool_max_connections",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	// What clients invent makes no series.
	slices.Sort(requests)
	if diff := cmp.Diff([]string{"GET 200 /v1/{id}", "GET 404 unmatched", "_OTHER 405 /v1/{id}"}, requests); diff != "" {
		t.Error(diff)
	}
}
