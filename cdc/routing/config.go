package routing

import "github.com/cdc-relay/cdc-relay/cdc"

// Config says how rows become records.
type Config struct {
	Format string // cloudevents (default), raw, debezium
	Source string // ce_source; required for cloudevents
	Topic  string // template, columns in braces by their roles; default "{aggregatetype}-event"
	Key    string // template; default "{aggregateid}"
	// AllowedTopics are exact names or prefixes ending in *; a row that routes
	// elsewhere is a bad row. Empty refuses every row: New reports it.
	AllowedTopics []string
	// ReservedTopics may never be routed to: position and parked topic.
	ReservedTopics []cdc.Topic
	Timestamp      string            // commit (default) or produce
	Columns        map[string]string // role (id, aggregatetype, aggregateid, type, payload, headers, created_at) -> column name
	PositionHeader bool              // format debezium only: also send cdc-relay-position
	// Debezium has the Outbox Event Router's options under their own names.
	Debezium map[string]string
}
