package relaytest

import (
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
)

// Watch starts a ledger for the relay of this environment; cfg says what the
// load is like.
func (e *Environment) Watch(t testing.TB, cfg ledger.Config) *ledger.Ledger {
	t.Helper()
	cfg.Postgres, cfg.Database, cfg.Kafka = e.Postgres, e.Database, e.Kafka
	cfg.Topic, cfg.Partitions, cfg.PositionTopic, cfg.Slot = e.Topic, e.Partitions, e.PositionTopic, e.Slot
	if cfg.AtLeastOnce {
		cfg.PositionTopic = ""
	}
	return ledger.Start(t, cfg)
}
