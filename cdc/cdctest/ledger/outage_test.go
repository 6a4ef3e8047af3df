package ledger_test

import (
	"os"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// outageVariable lengthens the outage of TestKafkaAway.
const outageVariable = "CDC_TEST_OUTAGE"

// resumeWithin is how soon after the broker's return streaming goes on, on a
// machine that is busy with other tests. It is shorter than the relay's patience
// with a broker that does not answer.
const resumeWithin = 20 * time.Second

// TestKafkaAway: the broker goes away under load and comes back. Nothing is
// lost or repeated, the slot is kept, and streaming goes on soon. The broker is
// a fake one everywhere: an Apache Kafka of one node, stopped right behind an
// answer to EndTxn, may come back without a marker (see KafkaServer.Stop), which
// is not what is judged here; the nemesis stops real ones.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	outage := 10 * time.Second
	if value := os.Getenv(outageVariable); value != "" {
		parsed, err := time.ParseDuration(value)
		if err != nil {
			t.Fatalf("%s: %v", outageVariable, err)
		}
		outage = parsed
	}
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.StartKafka(t), Binary: relaytest.Build(t),
	})
	// Every transaction that times out meanwhile halves the batches.
	l := e.Watch(t, ledger.Config{RowsPerSecond: 500, MayCutRows: 10, Seed: cdctest.Seed(t)})
	relay := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, 500, time.Minute)
	e.Kafka.Stop(t)
	cdctest.Pause(t, outage)
	before := l.Observer().Count()
	e.Kafka.Start(t)
	returned := time.Now()
	relay.WaitState(t, cdc.StateStreaming, resumeWithin)
	l.WaitSeen(t, before+1, resumeWithin)
	t.Logf("the first new event was seen %s after the broker came back", time.Since(returned).Round(time.Millisecond))
	l.WaitSeen(t, before+500, time.Minute)
	l.Stop(t)
	relay.Stop(t)
	if lives := relay.Lives(); lives != 1 {
		t.Errorf("the relay lived %d times, want once: an outage is no reason to end", lives)
	}
	l.RequireExact(t, 1000)
}
