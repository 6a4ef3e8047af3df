package ledger_test

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestPostgresCrashes: a crash moves the slot back to where it stood on disk,
// so the server sends again what was acknowledged; the recorded position skips
// it. A clean restart in between must not be delayed by the relay; the server
// gives up waiting for one that does not leave only after wal_sender_timeout.
func TestPostgresCrashes(t *testing.T) {
	t.Parallel()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"checkpoint_timeout": "1h", "wal_sender_timeout": "5min"}}),
		Kafka:    cdctest.SharedKafka(t), Binary: relaytest.Build(t),
	})
	l := e.Watch(t, ledger.Config{RowsPerSecond: 1000, Seed: cdctest.Seed(t)})
	relay := relaytest.Supervise(t, e.Options())
	for _, mode := range []string{"immediate", "fast", "immediate"} {
		l.WaitSeen(t, l.Observer().Count()+1000, time.Minute)
		began := time.Now()
		e.Postgres.Stop(t, mode)
		if took := time.Since(began); mode == "fast" && took > 20*time.Second {
			t.Errorf("a stop in mode %s took %s", mode, took)
		}
		e.Postgres.Start(t)
		relay.WaitState(t, cdc.StateStreaming, time.Minute)
	}
	l.WaitSeen(t, l.Observer().Count()+1000, time.Minute)
	l.Stop(t)
	relay.Stop(t)
	if lives := relay.Lives(); lives != 1 {
		t.Errorf("the relay lived %d times, want once: a restart of the server is no reason to end", lives)
	}
	l.RequireExact(t, 4000)
}
