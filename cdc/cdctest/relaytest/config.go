package relaytest

import (
	"fmt"
	"strings"
)

// Config renders the relay's configuration.
func (e *Environment) Config() string {
	brokers := strings.Join(e.Kafka.Brokers(), ", ")
	return fmt.Sprintf(`relay: %s
postgres:
  dsn: %q
  admin_dsn: %q
  audit_dsn: %q
  slot: %s
  publication: %s
  table: public.outbox
kafka:
  brokers: [%s]
  position_topic: %s
  replication: 1
  transaction_ring: %d
routing:
  source: %s
  topic: "{aggregatetype}"
  allowed_topics: [%s]
admin:
  listen: %s
log:
  format: text
%s`, e.Relay, e.Postgres.DSN(e.Database, role), e.Postgres.DSN(e.Database, "postgres"), e.Postgres.DSN(e.Database, "postgres"), e.Slot, e.Publication,
		brokers, e.PositionTopic, e.TransactionRing, e.Source, e.Topic, e.AdminAddr, e.Extra)
}
