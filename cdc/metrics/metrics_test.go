package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/cdc-relay/cdc-relay/cdc"
)

var update = flag.Bool("update", false, "write golden files instead of comparing them")

// bench is a registry with metrics of a status and a slot that tests set.
type bench struct {
	*Metrics
	registry *prometheus.Registry
	status   cdc.Status
	stats    cdc.SlotStats
	statsErr error
	looks    int
	now      time.Time
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{registry: prometheus.NewPedanticRegistry(), now: time.Unix(1_800_000_000, 0)}
	m, err := New(Config{
		Registerer: b.registry, Slot: "payments",
		Status: func() cdc.Status { return b.status },
		SlotStats: func(ctx context.Context) (cdc.SlotStats, error) {
			b.looks++
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the slot was looked up without a deadline")
			}
			return b.stats, b.statsErr
		},
		Version: "1.2.3", Revision: "abc", Now: func() time.Time { return b.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Metrics = m
	return b
}

// drive makes every metric appear.
func (b *bench) drive() {
	safe, age := int64(5_000_000), int64(1234)
	b.status = cdc.Status{
		State: cdc.StateStreaming, Active: true, Mode: cdc.ExactlyOnce,
		ReceivedLSN: 0x3000, RecordedLSN: 0x2800, ConfirmedLSN: 0x2000,
		OwedRows: 3, OwedBytes: 900, OldestOwed: b.now.Add(-2 * time.Second),
		ServerClock: 500 * time.Millisecond, CaughtUpAt: b.now.Add(-time.Minute), MovedAt: b.now.Add(-250 * time.Millisecond),
	}
	b.stats = cdc.SlotStats{
		CurrentLSN: 0x5000, SafeWALBytes: &safe, CatalogXMinAge: &age,
		Slot: &cdc.SlotFacts{Active: true, ConfirmedFlush: 0x2000, Restart: 0x1000, WALStatus: "extended"},
	}
	b.Received(cdc.ReceivedCounts{Transactions: 2, Rows: 5, SkippedRows: 1, Ignored: 4, Bytes: 300})
	b.Recorded(&cdc.Batch{
		Records: []cdc.Record{
			{Topic: "payment-event", Key: []byte("key"), Value: []byte("value"), Headers: []cdc.Header{{Key: "h", Value: []byte("v")}}},
			{Topic: "payment-event", Value: []byte("12345")},
			{Topic: "refund-event", Key: []byte("k")},
		},
		// The third commit is ahead of the server's clock as we know it.
		CommitTimes: []time.Time{b.now, b.now.Add(-time.Second), b.now.Add(time.Minute)},
	}, 30*time.Millisecond, b.now)
	b.Recorded(&cdc.Batch{Position: &cdc.PositionRecord{}}, 5*time.Millisecond, b.now)
	cause := &cdc.Problem{What: "away", Err: io.EOF}
	b.StateChanged(cdc.StateStarting, cdc.StateRetrying, cause)
	b.Failed(cause)
	b.StateChanged(cdc.StateRetrying, cdc.StateRetrying, cause)
	b.Failed(cause)
	b.StateChanged(cdc.StateRetrying, cdc.StateStreaming, nil)
}

func (b *bench) gather(t testing.TB) []*dto.MetricFamily {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// text is the exposition without comments.
func (b *bench) text(t testing.TB) string {
	t.Helper()
	var out bytes.Buffer
	for _, family := range b.gather(t) {
		if _, err := expfmt.MetricFamilyToText(&out, family); err != nil {
			t.Fatal(err)
		}
	}
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(out.String(), "")
}

// value returns a series' value in the exposition, or "absent".
func (b *bench) value(t testing.TB, series string) string {
	t.Helper()
	for line := range strings.Lines(b.text(t)) {
		if value, ok := strings.CutPrefix(line, prefix+series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "absent"
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is stale: read the difference, then run with -update (-want +got):\n%s", name, diff)
	}
}

func TestExposition(t *testing.T) {
	b := newBench(t)
	b.drive()
	got := regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(b.text(t), `goversion="go"`)
	compareGolden(t, "testdata/exposition.txt", got)
}

func TestNamesAreClean(t *testing.T) {
	b := newBench(t)
	b.drive()
	problems, err := promlint.NewWithMetricFamilies(b.gather(t)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

func TestTableIsTheRegistry(t *testing.T) {
	b := newBench(t)
	b.drive()
	got := map[string]Row{}
	for _, family := range b.gather(t) {
		row := Row{Name: family.GetName(), Type: strings.ToLower(family.GetType().String()), Help: family.GetHelp()}
		for _, pair := range family.GetMetric()[0].GetLabel() {
			row.Labels = append(row.Labels, pair.GetName())
		}
		slices.Sort(row.Labels)
		got[row.Name] = row
	}
	want := map[string]Row{}
	for _, row := range Table() {
		row.Labels = slices.Sorted(slices.Values(row.Labels))
		want[row.Name] = row
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table and registry differ (-table +registry):\n%s", diff)
	}
	for _, row := range Table() {
		if !slices.Contains(row.Labels, "slot") && row.Name != prefix+"build_info" {
			t.Errorf("%s does not carry the slot", row.Name)
		}
	}
}

func TestDocsAreCurrent(t *testing.T) {
	compareGolden(t, "../docs/metrics.md", Markdown(Table()))
}

func TestHaltReasonsAreTheClosedList(t *testing.T) {
	source, err := os.ReadFile("../problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []cdc.HaltReason
	for _, match := range regexp.MustCompile(`Halt\w+\s+HaltReason = "([a-z-]+)"`).FindAllSubmatch(source, -1) {
		want = append(want, cdc.HaltReason(match[1]))
	}
	if len(want) == 0 || !slices.Equal(want, haltReasons()) {
		t.Errorf("got %v, package cdc has %v", haltReasons(), want)
	}
}

func TestFailureReason(t *testing.T) {
	for _, test := range []struct {
		want  string
		cause *cdc.Problem
	}{
		{"other", nil},
		{"other", &cdc.Problem{What: "connection refused"}},
		{"bad-row", cdc.BadRow("no topic", "")},
		{"other", &cdc.Problem{Reason: "of another list"}},
		{"undecodable", &cdc.Problem{Treatment: cdc.Undecodable, Err: io.EOF}},
		{"stuck", &cdc.Problem{Treatment: cdc.Halt, Reason: cdc.HaltStuck, Err: io.EOF}},
		{"transaction-timeout", &cdc.Problem{Err: fmt.Errorf("publish: %w", errors.Join(cdc.ErrTransactionTimeout, kerr.InvalidTxnState))}},
		{"postgres", &cdc.Problem{Err: fmt.Errorf("attach: %w", sqlError("28P01"))}},
		{"kafka", &cdc.Problem{Err: fmt.Errorf("open: %w", kerr.NotCoordinator)}},
		{"network", &cdc.Problem{Err: fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: errors.New("refused")})}},
		{"network", &cdc.Problem{Err: io.ErrUnexpectedEOF}},
	} {
		if got := failureReason(test.cause); got != test.want {
			t.Errorf("%v: got %s, want %s", test.cause, got, test.want)
		}
	}
}

type sqlError string

func (e sqlError) Error() string    { return "server said no" }
func (e sqlError) SQLState() string { return string(e) }

func TestTopicsAreBounded(t *testing.T) {
	b := newBench(t)
	batch := &cdc.Batch{}
	for i := range maxTopics + 50 {
		batch.Records = append(batch.Records, cdc.Record{Topic: cdc.Topic(fmt.Sprintf("topic-%03d", i))})
		batch.CommitTimes = append(batch.CommitTimes, b.now)
	}
	b.Recorded(batch, time.Millisecond, b.now)
	b.Recorded(batch, time.Millisecond, b.now)
	for _, family := range b.gather(t) {
		if family.GetName() == prefix+"records_recorded_total" && len(family.GetMetric()) != maxTopics+1 {
			t.Errorf("got %d series, want %d", len(family.GetMetric()), maxTopics+1)
		}
	}
	for series, want := range map[string]string{
		`records_recorded_total{slot="payments",topic="topic-099"}`: "2",
		`records_recorded_total{slot="payments",topic="topic-100"}`: "absent",
		`records_recorded_total{slot="payments",topic="other"}`:     "100",
	} {
		if got := b.value(t, series); got != want {
			t.Errorf("%s: got %s, want %s", series, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{})
	for _, field := range []string{"Registerer", "Slot", "Status"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want it to name %s", err, field)
		}
	}
	registry := prometheus.NewRegistry()
	cfg := Config{Registerer: registry, Slot: "a", Status: func() cdc.Status { return cdc.Status{} }}
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("the same slot was registered twice")
	}
}
