//go:build linux

package endurance

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// settledAfter is the reconnect whose goroutines and descriptors are the measure
// for the last one.
const settledAfter = 20

// maxGrowth is what may come and go between two looks: a request to the admin
// server, a connection that is about to be closed.
const maxGrowth = 4

// TestReconnects: the walsender is terminated again and again. Every time the
// relay throws both clients away and starts anew, and nothing is left of the old
// ones. Each life publishes a row, so the back-off stays at its first step.
func TestReconnects(t *testing.T) {
	t.Parallel()
	reconnects := size(t, 50, 300, 1000)
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t),
	})
	conn := e.Postgres.Connect(t, e.Database)
	r := readTopic(t, e.Kafka, e.Topic, NewSingleCensus(reconnects))
	p := relaytest.Start(t, e.Options())
	p.WaitState(t, cdc.StateStreaming, 30*time.Second)
	var settled, last held
	var longest time.Duration
	began := time.Now()
	for n := 1; n <= reconnects; n++ {
		ended := time.Now()
		terminateWalsender(t, conn, e.Slot)
		if _, err := conn.Exec(t.Context(), insertRowsSQL, e.Topic, n, n); err != nil {
			t.Fatal(err)
		}
		r.wait(t, n, time.Minute)
		longest = max(longest, time.Since(ended))
		if n == settledAfter || n == reconnects {
			last = heldBy(t, p, settled)
		}
		if n == settledAfter {
			settled = last
		}
	}
	t.Logf("%d reconnects in %s, the longest %s; after %d: %s, at the end: %s, peak RSS %s", reconnects, time.Since(began).Round(time.Millisecond),
		longest.Round(time.Millisecond), settledAfter, settled, last, mib(peakRSS(t, p.PID())))
	if last.grown(settled) {
		t.Errorf("the relay held %s after %d reconnects and %s after %d", settled, settledAfter, last, reconnects)
	}
	if code := p.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d, want 0", code)
	}
	r.finish(t, e.Kafka, e.Topic)
}

func terminateWalsender(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	await(t, "terminate the walsender of the slot", time.Minute, func() bool {
		var terminated bool
		err := conn.QueryRow(t.Context(), "SELECT coalesce(pg_terminate_backend(active_pid), false) FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&terminated)
		if err != nil {
			t.Fatal(err)
		}
		return terminated
	})
}

// held is what a process holds.
type held struct{ goroutines, descriptors int }

func (h held) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors", h.goroutines, h.descriptors)
}

// heldBy asks the relay, for a while: what was closed may be on its way out. With
// a measure it asks longer, until the answer has not grown.
func heldBy(t *testing.T, p *relaytest.Process, before held) held {
	t.Helper()
	patience := 2 * time.Second
	if before != (held{}) {
		patience = 30 * time.Second
	}
	least := held{goroutines: 1 << 30, descriptors: 1 << 30}
	for began := time.Now(); time.Since(began) < patience; cdctest.Pause(t, 50*time.Millisecond) {
		now := held{goroutines: metric(t, p, "go_goroutines", ""), descriptors: metric(t, p, "process_open_fds", "")}
		least.goroutines, least.descriptors = min(least.goroutines, now.goroutines), min(least.descriptors, now.descriptors)
		if !least.grown(before) {
			break
		}
	}
	return least
}

// grown says whether a process holds more than what comes and goes.
func (h held) grown(before held) bool {
	return h.goroutines > before.goroutines+maxGrowth || h.descriptors > before.descriptors+maxGrowth
}

// metric reads the first series of a metric that has the label; an empty label is
// that of a metric without any.
func metric(t *testing.T, p *relaytest.Process, name, label string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code, body, err := p.Get(ctx, "/metrics")
	if err != nil || code != 200 {
		t.Fatalf("/metrics answered %d: %v", code, err)
	}
	for line := range strings.Lines(string(body)) {
		series, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || series != name && (label == "" || !strings.HasPrefix(series, name+"{") || !strings.Contains(series, label)) {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("metric %s: %v", name, err)
		}
		return int(value)
	}
	t.Fatalf("there is no metric %s with %s", name, label)
	return 0
}
