//go:build linux

package endurance

import (
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// How long an attached relay may delay a clean shutdown of the server.
const (
	stopsWithin             = time.Second
	stopsWithinWithoutKafka = 3 * time.Second
)

// TestShutdownNotDelayed stops the server in mode fast while the relay is
// attached. A server waits for its walsenders until the other side has confirmed
// everything; the relay lets go.
func TestShutdownNotDelayed(t *testing.T) {
	t.Parallel()
	stops := size(t, 2, 5, 5)
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		e, relay := attached(t, cdctest.SharedKafka(t))
		stopRepeatedly(t, e, stops, stopsWithin, func() { relay.WaitState(t, cdc.StateStreaming, time.Minute) }, func() {})
		relay.Stop(t)
	})
	t.Run("under load", func(t *testing.T) {
		t.Parallel()
		e, relay := attached(t, cdctest.SharedKafka(t))
		l := e.Watch(t, ledger.Config{RowsPerSecond: 500, Seed: rand.Uint64()})
		stopRepeatedly(t, e, stops, stopsWithin, func() {
			relay.WaitState(t, cdc.StateStreaming, time.Minute)
			l.WaitSeen(t, l.Observer().Count()+200, time.Minute)
		}, func() {})
		l.Stop(t)
		relay.Stop(t)
		l.RequireExact(t, 200*stops)
	})
	t.Run("Kafka goes away under load", func(t *testing.T) {
		t.Parallel()
		e, relay := attached(t, ownKafka(t))
		l := e.Watch(t, ledger.Config{RowsPerSecond: 500, MayCutRows: 10, Seed: rand.Uint64()})
		stopRepeatedly(t, e, stops, stopsWithinWithoutKafka, func() {
			relay.WaitState(t, cdc.StateStreaming, time.Minute)
			l.WaitSeen(t, l.Observer().Count()+200, time.Minute)
			stopKafka(t, e, relay)
			cdctest.Pause(t, rand.N(time.Second)) // rows pile up
		}, func() { e.Kafka.Start(t) })
		l.Stop(t)
		relay.Stop(t)
		l.RequireExact(t, 200*stops)
	})
	t.Run("Kafka goes away while nothing is owed", func(t *testing.T) {
		t.Parallel()
		e, relay := attached(t, ownKafka(t))
		stopRepeatedly(t, e, stops, stopsWithinWithoutKafka, func() {
			relay.WaitState(t, cdc.StateStreaming, time.Minute)
			stopKafka(t, e, relay)
		}, func() { e.Kafka.Start(t) })
		relay.WaitState(t, cdc.StateStreaming, time.Minute)
		relay.Stop(t)
	})
}

// attached starts a relay on a Postgres of its own.
func attached(t *testing.T, kafka *cdctest.Kafka) (*relaytest.Environment, *relaytest.Supervisor) {
	t.Helper()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.StartPostgres(t, cdctest.PostgresConfig{}), Kafka: kafka, Binary: relaytest.Build(t),
	})
	return e, relaytest.Supervise(t, e.Options())
}

// stopKafka stops the broker while the relay stands still between two requests,
// and not between a commit and its markers: an Apache Kafka of one node may lose
// one then, see cdctest.KafkaServer.Stop.
func stopKafka(t *testing.T, e *relaytest.Environment, relay *relaytest.Supervisor) {
	t.Helper()
	relay.Signal(syscall.SIGSTOP)
	defer relay.Signal(syscall.SIGCONT)
	e.Kafka.AwaitMarkers(t, e.Topic, e.PositionTopic)
	e.Kafka.Stop(t)
}

// stopRepeatedly stops the server each time that ready returns, and starts it
// again. A relay that does not let go makes every stop last, or one of them until
// wal_sender_timeout, which is 10 s.
func stopRepeatedly(t *testing.T, e *relaytest.Environment, stops int, within time.Duration, ready, after func()) {
	t.Helper()
	slow := measureSlowness(t)
	var took []time.Duration
	for range stops {
		ready()
		began := time.Now()
		e.Postgres.Stop(t, "fast")
		took = append(took, time.Since(began).Round(time.Millisecond))
		after()
		e.Postgres.Start(t)
	}
	t.Logf("%d stops in mode fast took %v", stops, took)
	if d := slices.Min(took); d > within && d > slow.bound(t, within) {
		t.Errorf("the fastest stop in mode fast took %s, want at most %s", d, within)
	}
	if d := slices.Max(took); d > within+stall && d > slow.bound(t, within)+stall {
		t.Errorf("a stop in mode fast took %s, want at most %s even where something stalls", d, within+stall)
	}
}
