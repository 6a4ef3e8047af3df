package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc"
)

var testNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fakeAdmin serves a status that the test sets.
func fakeAdmin(t *testing.T, status *atomic.Pointer[cdc.Status], withPprof bool) *httptest.Server {
	t.Helper()
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "cdc_relay_test", Help: "A test."})
	registry.MustRegister(gauge)
	a := &adminServer{
		logger: slog.New(slog.DiscardHandler), relay: "payments", slot: "payments_outbox",
		status: func() cdc.Status { return *status.Load() }, now: func() time.Time { return testNow },
	}
	server := httptest.NewServer(a.mux(registry, withPprof))
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func TestProbes(t *testing.T) {
	halted := &cdc.Problem{Treatment: cdc.Halt, Reason: cdc.HaltSlotLost, What: "the slot is lost"}
	tests := []struct {
		path string
		s    cdc.Status
		code int
		body string
	}{
		{"/livez", cdc.Status{MovedAt: testNow.Add(-29 * time.Second)}, 200, "ok"},
		{"/livez", cdc.Status{MovedAt: testNow.Add(-31 * time.Second)}, 503, "has not moved for 31s"},
		{"/startupz", cdc.Status{}, 200, "ok"},
		{"/readyz", cdc.Status{State: cdc.StateStreaming}, 200, "streaming"},
		{"/readyz", cdc.Status{State: cdc.StateStandby}, 200, "standby"},
		{"/readyz", cdc.Status{State: cdc.StateRetrying}, 200, "retrying"},
		{"/readyz", cdc.Status{State: cdc.StateStarting}, 503, "starting"},
		{"/readyz", cdc.Status{State: cdc.StateStalled}, 503, "stalled"},
		{"/readyz", cdc.Status{State: cdc.StateStopping}, 503, "stopping"},
		{"/readyz", cdc.Status{State: cdc.StateHalted, Cause: halted}, 503, "halted: slot-lost: the slot is lost"},
		{"/metrics", cdc.Status{}, 200, "cdc_relay_test 0"},
		{"/nothing", cdc.Status{}, 404, ""},
		{"/debug/pprof/", cdc.Status{}, 404, ""},
	}
	for _, test := range tests {
		var status atomic.Pointer[cdc.Status]
		status.Store(&test.s)
		code, body := get(t, fakeAdmin(t, &status, false).URL+test.path)
		if code != test.code || !strings.Contains(body, test.body) {
			t.Errorf("%s in state %q: got %d %s, want %d %s", test.path, test.s.State, code, body, test.code, test.body)
		}
	}
}

func TestPprofIsServedWhereItIsWanted(t *testing.T) {
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{})
	if code, _ := get(t, fakeAdmin(t, &status, true).URL+"/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

func TestStatusJSONIsTheContract(t *testing.T) {
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{
		State: cdc.StateRetrying, Since: testNow.Add(-90 * time.Second), Active: true, Mode: cdc.ExactlyOnce,
		Cause:       &cdc.Problem{What: "no broker answers", Why: "dial", Fix: "start Kafka"},
		ReceivedLSN: 0x16B3748, RecordedLSN: 0x16B3600, ConfirmedLSN: 0x16B3500, SlotConfirmedLSN: 0x16B3400,
		OwedRows: 3, OwedBytes: 400, OldestOwed: testNow.Add(-2500 * time.Millisecond),
		MovedAt: testNow.Add(-time.Second),
		Record:  &cdc.PositionRecord{Version: 1, State: cdc.RecordRunning, Mode: cdc.ExactlyOnce, Generation: 1, SystemID: "7", RecordedLSN: 0x16B3600},
	})
	code, body := get(t, fakeAdmin(t, &status, false).URL+"/status")
	if code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "version")
	record, _ := got["position_record"].(map[string]any)
	if record["recorded_lsn"] != "0/16B3600" || record["system_id"] != "7" {
		t.Errorf("position_record: %v", record)
	}
	delete(got, "position_record")
	want := map[string]any{
		"relay": "payments", "from": "relay", "delivery": "exactly-once", "healthy": false, "unhealthy": []any{"the relay is retrying"},
		"state": "retrying", "state_age_seconds": 90.0, "active": true, "lag_seconds": 2.5, "owed_rows": 3.0, "owed_bytes": 400.0,
		"cause":        map[string]any{"what": "no broker answers", "why": "dial", "fix": "start Kafka"},
		"received_lsn": "0/16B3748", "recorded_lsn": "0/16B3600", "confirmed_lsn": "0/16B3500", "moved_age_seconds": 1.0,
		"slot": map[string]any{"name": "payments_outbox", "confirmed_lsn": "0/16B3500"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	report, err := relayReport(t.Context(), strings.TrimPrefix(fakeAdmin(t, &status, false).URL, "http://"))
	if err != nil || report.ReceivedLSN != 0x16B3748 || report.From != "relay" {
		t.Errorf("read back: %+v, %v", report, err)
	}
}

func TestPublished(t *testing.T) {
	const lsn = cdc.LSN(0x100)
	tests := []struct {
		name  string
		query string
		s     cdc.Status
		code  int
	}{
		{"recorded", "?lsn=0/100", cdc.Status{Active: true, RecordedLSN: lsn}, 200},
		{"recorded while more is owed", "?lsn=0/100", cdc.Status{Active: true, RecordedLSN: lsn, OwedRows: 4}, 200},
		{"one byte more than recorded", "?lsn=0/101", cdc.Status{Active: true, RecordedLSN: lsn, ReceivedLSN: lsn}, 202},
		{"received and nothing owed", "?lsn=0/100", cdc.Status{Active: true, RecordedLSN: lsn - 1, ReceivedLSN: lsn}, 200},
		{"received and owed", "?lsn=0/100", cdc.Status{Active: true, RecordedLSN: lsn - 1, ReceivedLSN: lsn, OwedRows: 1}, 202},
		{"not received", "?lsn=0/100", cdc.Status{Active: true, RecordedLSN: lsn - 1, ReceivedLSN: lsn - 1}, 202},
		{"standby, slot confirmed", "?lsn=0/100", cdc.Status{SlotConfirmedLSN: lsn}, 200},
		{"standby, slot not confirmed", "?lsn=0/100", cdc.Status{SlotConfirmedLSN: lsn - 1}, 202},
		{"standby that knows an old record", "?lsn=0/100", cdc.Status{RecordedLSN: lsn, ReceivedLSN: lsn}, 202},
		{"standby that knows nothing", "?lsn=0/0", cdc.Status{}, 202},
		{"no LSN", "", cdc.Status{}, 400},
		{"LSN of another form", "?lsn=256", cdc.Status{}, 400},
		{"timeout without unit", "?lsn=0/100&timeout=5", cdc.Status{}, 400},
		{"negative timeout", "?lsn=0/100&timeout=-5s", cdc.Status{}, 400},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var status atomic.Pointer[cdc.Status]
			status.Store(&test.s)
			code, body := get(t, fakeAdmin(t, &status, false).URL+"/published"+test.query)
			if code != test.code || !json.Valid([]byte(body)) {
				t.Errorf("got %d %s, want %d", code, body, test.code)
			}
		})
	}
}

func TestPublishedWaits(t *testing.T) {
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{Active: true, RecordedLSN: 1})
	server := fakeAdmin(t, &status, false)
	begin := time.Now()
	if code, _ := get(t, server.URL+"/published?lsn=0/2&timeout=50ms"); code != http.StatusAccepted || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("got %d after %s", code, time.Since(begin))
	}
	time.AfterFunc(30*time.Millisecond, func() { status.Store(&cdc.Status{Active: true, RecordedLSN: 2}) })
	if code, _ := get(t, server.URL+"/published?lsn=0/2&timeout=20s"); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

func TestWaitCommand(t *testing.T) {
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{State: cdc.StateStreaming, Active: true, RecordedLSN: 2})
	address := strings.TrimPrefix(fakeAdmin(t, &status, false).URL, "http://")
	env := []string{
		"CDC_RELAY_RELAY=payments", "CDC_RELAY_POSTGRES_DSN_FILE=/dsn", "CDC_RELAY_KAFKA_BROKERS=kafka:9092",
		"CDC_RELAY_ROUTING_ALLOWED_TOPICS=x", "CDC_RELAY_ADMIN_LISTEN=" + address,
	}
	done := execute(t, env, "wait", "--lsn", "0/2")
	done.wantCode(t, exitFine)
	wantIn(t, done.stdout.String(), "everything up to 0/2 is in Kafka")
	late := execute(t, env, "wait", "--lsn", "0/3", "--timeout", "50ms", "-o", "json")
	late.wantCode(t, exitUnhealthy)
	wantIn(t, late.stdout.String(), `"published": false`, `"lsn": "0/3"`, `"state": "streaming"`)
	gone := execute(t, env, "wait", "--lsn", "0/2", "--timeout", "50ms", "--addr", "127.0.0.1:1")
	gone.wantCode(t, exitUnhealthy)
	wantIn(t, gone.stderr.String(), "no relay answers at 127.0.0.1:1", "fix: ")
}

func TestHealthcheckCommand(t *testing.T) {
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{MovedAt: testNow})
	address := strings.TrimPrefix(fakeAdmin(t, &status, false).URL, "http://")
	execute(t, nil, "healthcheck", "--addr", address).wantCode(t, exitFine)
	status.Store(&cdc.Status{MovedAt: testNow.Add(-time.Hour)})
	still := execute(t, nil, "healthcheck", "--addr", address)
	still.wantCode(t, exitUnhealthy)
	wantIn(t, still.stdout.String(), "has not moved")
	gone := execute(t, nil, "healthcheck", "--addr", "127.0.0.1:1")
	gone.wantCode(t, exitUnhealthy)
	wantIn(t, gone.stderr.String(), "no relay answers at 127.0.0.1:1")
	execute(t, nil, "healthcheck").wantCode(t, exitUsage)
}

func TestAdminServerAnswersWaitersWhenItStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var status atomic.Pointer[cdc.Status]
	status.Store(&cdc.Status{Active: true})
	asked := make(chan struct{}, 1000)
	a, err := newAdminServer(ctx, adminConfig{
		Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Gatherer: prometheus.NewRegistry(),
		Status: func() cdc.Status {
			select {
			case asked <- struct{}{}:
			default:
			}
			return *status.Load()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(ctx) }()
	answered := make(chan int, 1)
	go func() {
		code, _, err := adminGet(t.Context(), a.address(), "/published", url.Values{"lsn": {"0/2"}, "timeout": {"30s"}}, time.Minute)
		if err != nil {
			t.Error(err)
		}
		answered <- code
	}()
	<-asked
	begin := time.Now()
	cancel()
	<-ended
	if code := <-answered; code != http.StatusAccepted {
		t.Errorf("got %d", code)
	}
	if took := time.Since(begin); took > 20*time.Second { // it would wait for 30 s
		t.Errorf("it took %s", took)
	}
}
