package ledger_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// seedVariable replays the load and the faults of an earlier run.
const seedVariable = "CDC_TEST_SEED"

func seed(t *testing.T) uint64 {
	t.Helper()
	value := os.Getenv(seedVariable)
	if value == "" {
		n := rand.Uint64()
		t.Logf("%s=%d", seedVariable, n)
		return n
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVariable, err)
	}
	return n
}

// environment is a relay's on shared servers.
func environment(t *testing.T, binary, extra string) *relaytest.Environment {
	t.Helper()
	return relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: binary, Extra: extra,
	})
}

// watch starts a ledger for the relay of e; cfg says what the load is like.
func watch(t *testing.T, e *relaytest.Environment, cfg ledger.Config) *ledger.Ledger {
	t.Helper()
	cfg.Postgres, cfg.Database, cfg.Kafka = e.Postgres, e.Database, e.Kafka
	cfg.Topic, cfg.Partitions, cfg.PositionTopic, cfg.Slot = e.Topic, e.Partitions, e.PositionTopic, e.Slot
	return ledger.Start(t, cfg)
}

// pause waits, or fails the test when it is over.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// waitSeen waits until the reader has seen n different events.
func waitSeen(t *testing.T, l *ledger.Ledger, n int, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Observer().Wait(ctx, func() bool { return l.Observer().Count() >= n }); err != nil {
		t.Fatalf("%d events were seen within %s, want %d: %v", l.Observer().Count(), patience, n, err)
	}
}

// requireExact demands a report without violations about at least rows rows.
func requireExact(t *testing.T, l *ledger.Ledger, rows int) {
	t.Helper()
	report := l.Report(t)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if report.Rows < rows || report.Batches == 0 {
		t.Fatalf("only %d rows in %d batches were checked, want %d rows", report.Rows, report.Batches, rows)
	}
}
