package payment

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// Values of labels.
const (
	outcomeCommitted  = "committed"
	outcomeRolledBack = "rolled_back"

	idempotencyNew        = "new"
	idempotencyReplayed   = "replayed"
	idempotencyInProgress = "in_progress"
	idempotencyMismatch   = "mismatch"
	idempotencyMissing    = "missing"
)

// metrics: HTTP names are those of OpenTelemetry in Prometheus' form, so that
// public dashboards fit.
type metrics struct {
	requests     *prometheus.HistogramVec // method, route, status
	active       *prometheus.GaugeVec     // method
	bodyBytes    *prometheus.HistogramVec // route
	processed    *prometheus.CounterVec   // status, currency
	failures     *prometheus.CounterVec   // reason
	idempotency  *prometheus.CounterVec   // outcome
	inserted     *prometheus.CounterVec   // event_type
	transactions *prometheus.HistogramVec // outcome
	retries      *prometheus.CounterVec   // sqlstate
}

// newMetrics registers everything; a nil registerer keeps it private.
func newMetrics(registerer prometheus.Registerer, pool *pgxpool.Pool) (*metrics, error) {
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_server_request_duration_seconds", Help: "Time from the request's header to the answer's end.", Buckets: seconds,
		}, []string{"http_request_method", "http_route", "http_response_status_code"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "http_server_active_requests", Help: "Requests being answered.",
		}, []string{"http_request_method"}),
		bodyBytes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_server_request_body_size_bytes", Help: "Size of request bodies, as far as it was announced.", Buckets: prometheus.ExponentialBuckets(64, 4, 6),
		}, []string{"http_route"}),
		processed: counter("payments_processed_total", "Payments recorded, by how they ended.", "status", "currency"),
		failures:  counter("payments_failures_total", "Payments recorded as failed, by failure code.", "reason"),
		idempotency: counter("payments_idempotency_total", "Requests with an Idempotency-Key by what became of it; missing where it was needed and not sent.",
			"outcome"),
		inserted: counter("payments_outbox_inserted_total", "Events committed to the outbox, to be compared with the records that the relay wrote.", "event_type"),
		transactions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "payments_tx_duration_seconds", Help: "Time of database transactions that change something.", Buckets: seconds,
		}, []string{"outcome"}),
		retries: counter("payments_tx_retries_total", "Transactions tried again after a deadlock or a serialization failure.", "sqlstate"),
	}
	m.touch()
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.active, m.bodyBytes, m.processed, m.failures, m.idempotency, m.inserted, m.transactions, m.retries, newPoolCollector(pool)} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("payment: register metrics: %w", err)
		}
	}
	return m, nil
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// touch makes the series of bounded labels, so that a rate sees the first event.
func (m *metrics) touch() {
	for _, code := range event.FailureCodes() {
		m.failures.WithLabelValues(string(code))
	}
	for _, outcome := range []string{idempotencyNew, idempotencyReplayed, idempotencyInProgress, idempotencyMismatch, idempotencyMissing} {
		m.idempotency.WithLabelValues(outcome)
	}
	for _, eventType := range []string{event.TypeCompleted, event.TypeFailed} {
		m.inserted.WithLabelValues(eventType)
	}
	for _, state := range []string{sqlDeadlock, sqlSerializationFailure} {
		m.retries.WithLabelValues(state)
	}
	m.transactions.WithLabelValues(outcomeCommitted)
	m.transactions.WithLabelValues(outcomeRolledBack)
}

// countPayments counts what was committed.
func (m *metrics) countPayments(payments []Payment) {
	for _, p := range payments {
		status := "completed"
		if p.Failure != "" {
			status = "failed"
			m.failures.WithLabelValues(string(p.Failure)).Inc()
		}
		m.processed.WithLabelValues(status, p.Amount.Currency).Inc()
		m.inserted.WithLabelValues(eventOf(p).Type()).Inc()
	}
}

// observe counts one request.
func (m *metrics) observe(method, route string, status int, bodyBytes int64, took time.Duration) {
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
	if bodyBytes >= 0 {
		m.bodyBytes.WithLabelValues(route).Observe(float64(bodyBytes))
	}
}

// boundedMethod keeps clients from inventing label values.
func boundedMethod(method string) string {
	known := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
	if slices.Contains(known, method) {
		return method
	}
	return "_OTHER"
}
