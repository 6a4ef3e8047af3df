package relaytest_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

func TestMain(m *testing.M) { os.Exit(relaytest.Main(m)) }

func TestSupervisorGivesTheRelayAnotherLife(t *testing.T) {
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t),
	})
	relay := relaytest.Supervise(t, e.Options())
	relay.WaitState(t, cdc.StateStreaming, time.Minute)
	if !relay.Kill() {
		t.Fatal("there was nothing to kill")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := relay.WaitLife(ctx, 2); err != nil {
		t.Fatal(err)
	}
	relay.WaitState(t, cdc.StateStreaming, time.Minute)
	relay.Stop(t)
	if err := relay.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestBuildIsSharedByItsFlags(t *testing.T) {
	if first, second := relaytest.Build(t), relaytest.Build(t); first != second {
		t.Errorf("built twice: %s and %s", first, second)
	}
}
