//go:build ops

package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/metrics"
)

// liveDeadline bounds the wait for data, of all queries together.
const liveDeadline = 2 * time.Minute

// TestEveryPanelShowsData asks a real Prometheus, which scrapes the real
// registry of a busy relay, for what every panel asks. It finds label
// mismatches that no reading of the JSON finds.
func TestEveryPanelShowsData(t *testing.T) {
	relay := startRelay(t)
	prom := startPrometheus(t, strings.TrimPrefix(relay.URL, "http://"))
	variables := strings.NewReplacer("$job", ".+", "$instance", ".+", "$slot", ".+", "$__rate_interval", "4s")
	asked := 0
	for name, d := range dashboards(t) {
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				prom.expectLabelValues(t, variables.Replace(v.Definition))
			}
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				asked++
				if err := prom.awaitData(variables.Replace(q.Expr)); err != nil {
					t.Errorf("%s: panel %q, query %s: %v", name, p.Title, q.RefID, err)
				}
			}
		}
	}
	if asked == 0 {
		t.Error("nothing was asked")
	}
	prom.expectHealthyRules(t)
}

// startRelay serves the metrics of a relay that is busy until the test ends.
func startRelay(t *testing.T) *httptest.Server {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	safe := int64(1 << 30)
	m, err := metrics.New(metrics.Config{
		Registerer: registry, Slot: "payments", Version: "1.2.3", Revision: "abc",
		Status: func() cdc.Status {
			return cdc.Status{
				State: cdc.StateStreaming, Active: true, ReceivedLSN: 0x5000, RecordedLSN: 0x4000, ConfirmedLSN: 0x3000,
				OwedRows: 3, OwedBytes: 300, OldestOwed: time.Now().Add(-time.Second), CaughtUpAt: time.Now(), MovedAt: time.Now(),
			}
		},
		SlotStats: func(context.Context) (cdc.SlotStats, error) {
			return cdc.SlotStats{
				CurrentLSN: 0x6000, SafeWALBytes: &safe,
				Slot: &cdc.SlotFacts{Active: true, ConfirmedFlush: 0x3000, Restart: 0x1000, WALStatus: "reserved"},
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keepBusy(ctx, m)
	}()
	t.Cleanup(func() { cancel(); <-done })
	// As the relay's own admin server answers.
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(server.Close)
	return server
}

func keepBusy(ctx context.Context, m *metrics.Metrics) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.Received(cdc.ReceivedCounts{Transactions: 1, Rows: 2, SkippedRows: 1, Ignored: 1, Bytes: 100})
			m.Recorded(&cdc.Batch{
				Records:     []cdc.Record{{Topic: "payment-event", Value: []byte("value")}, {Topic: "refund-event", Value: []byte("value")}},
				CommitTimes: []time.Time{now.Add(-20 * time.Millisecond), now.Add(-10 * time.Millisecond)},
			}, 5*time.Millisecond, now)
			cause := &cdc.Problem{What: "away", Err: io.EOF}
			m.StateChanged(cdc.StateStreaming, cdc.StateRetrying, cause)
			m.Failed(cause)
			m.StateChanged(cdc.StateRetrying, cdc.StateStreaming, nil)
		}
	}
}

// livePrometheus is a running server.
type livePrometheus struct {
	address string
	until   time.Time // later, each question is asked once
}

func startPrometheus(t *testing.T, target string) livePrometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("prometheus is needed (Debian's package prometheus): %v", err)
	}
	dir := t.TempDir()
	rules, err := filepath.Abs("rules/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 500ms}\nrule_files: [%q]\n"+
		"scrape_configs: [{job_name: cdc-relay, static_configs: [{targets: [%q]}]}]\n", rules, target)
	configFile := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	prom := livePrometheus{address: cdctest.Address(t), until: time.Now().Add(liveDeadline)}
	var log bytes.Buffer
	cmd := exec.Command(binary, "--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+prom.address)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", log.String())
		}
	})
	// Two scrapes are the least that rate() needs; one that failed is an up of 0.
	if err := prom.awaitData(`sum_over_time(up{job="cdc-relay"}[1m]) >= 8`); err != nil {
		t.Fatalf("prometheus does not scrape: %v", err)
	}
	return prom
}

// ask decodes the data of one answer of the HTTP API.
func (p livePrometheus) ask(path string, params url.Values, data any) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + p.address + path + "?" + params.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", response.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus answers %s", answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// awaitData polls until the query returns at least one series and every series
// has a number.
func (p livePrometheus) awaitData(query string) error {
	return p.await(func() error {
		var data struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		}
		if err := p.ask("/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
			return err
		}
		if len(data.Result) == 0 {
			return fmt.Errorf("no data for %s", query)
		}
		for _, series := range data.Result {
			if series.Value[1] == "NaN" {
				return fmt.Errorf("NaN at %v for %s", series.Metric, query)
			}
		}
		return nil
	})
}

// await polls until the question has its answer, and returns the last error.
func (p livePrometheus) await(question func() error) error {
	for {
		err := question()
		if err == nil || time.Now().After(p.until) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// expectLabelValues asks what a variable of the form label_values(selector,
// label) shows.
func (p livePrometheus) expectLabelValues(t *testing.T, definition string) {
	t.Helper()
	inner := strings.TrimSuffix(strings.TrimPrefix(definition, "label_values("), ")")
	cut := strings.LastIndex(inner, ", ")
	if cut < 0 {
		t.Fatalf("%s is not of the form label_values(selector, label)", definition)
	}
	var values []string
	err := p.await(func() error {
		err := p.ask("/api/v1/label/"+inner[cut+2:]+"/values", url.Values{"match[]": {inner[:cut]}}, &values)
		if err == nil && len(values) == 0 {
			err = errors.New("no values")
		}
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", definition, err)
	}
}

// expectHealthyRules waits until every rule was evaluated, without an error and
// without firing.
func (p livePrometheus) expectHealthyRules(t *testing.T) {
	t.Helper()
	err := p.await(func() error {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string } `json:"rules"`
			} `json:"groups"`
		}
		if err := p.ask("/api/v1/rules", nil, &data); err != nil {
			return err
		}
		var problems []error
		count := 0
		for _, group := range data.Groups {
			for _, r := range group.Rules {
				count++
				if r.Health != "ok" || r.State != "inactive" {
					problems = append(problems, fmt.Errorf("%s is %s and %s %s", r.Name, r.Health, r.State, r.LastError))
				}
			}
		}
		if count != len(rules(t)) {
			problems = append(problems, fmt.Errorf("%d rules are loaded, want %d", count, len(rules(t))))
		}
		return errors.Join(problems...)
	})
	if err != nil {
		t.Errorf("with a relay in good order: %v", err)
	}
}
