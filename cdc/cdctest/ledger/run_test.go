package ledger_test

import (
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// environment is a relay's on shared servers.
func environment(t *testing.T, binary, extra string) *relaytest.Environment {
	t.Helper()
	return relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: binary, Extra: extra,
	})
}
