package routing

import "github.com/cdc-relay/cdc-relay/cdc"

// Config says how rows become records.
type Config struct {
	Format string // cloudevents (default), cloudevents-structured, raw, debezium
	Source string // ce_source; required for the cloudevents formats
	// Topic is a template, columns in braces by their roles or names; {{ and }}
	// stand for braces. Default "{aggregatetype}-event". Format debezium routes by
	// its own options instead.
	Topic string
	Key   string // template like Topic; default "{aggregateid}"
	// AllowedTopics are exact names or prefixes ending in *; a row that routes
	// elsewhere is a bad row. Empty refuses every row: New reports it.
	AllowedTopics []string
	// ReservedTopics may never be routed to: position and parked topic.
	ReservedTopics []cdc.Topic
	ParkedTopic    cdc.Topic         // where Park sends bad rows; only needed by it
	Timestamp      string            // commit (default) or produce
	Columns        map[string]string // role (id, aggregatetype, aggregateid, type, payload, headers, created_at) -> column name
	PositionHeader bool              // format debezium only: also send cdc-relay-position
	// Debezium has the Outbox Event Router's options under their own names.
	Debezium map[string]string
}

// The formats of records.
const (
	FormatCloudEvents           = "cloudevents"
	FormatCloudEventsStructured = "cloudevents-structured"
	FormatRaw                   = "raw"
	FormatDebezium              = "debezium"
)

// The defaults of the templates.
const (
	DefaultTopic = "{aggregatetype}-event"
	DefaultKey   = "{aggregateid}"
)

// Headers that the relay sets whatever the format, but for debezium.
const (
	HeaderPosition   = "cdc-relay-position"
	HeaderCommitTime = "cdc-relay-commit-time"
)

// The values of Config.Timestamp.
const (
	timestampCommit  = "commit"
	timestampProduce = "produce"
)

// The roles that a column may have; a role is also the default column name.
const (
	roleID            = "id"
	roleAggregateType = "aggregatetype"
	roleAggregateID   = "aggregateid"
	roleType          = "type"
	rolePayload       = "payload"
	roleHeaders       = "headers"
	roleCreatedAt     = "created_at"
)

func roles() []string {
	return []string{roleID, roleAggregateType, roleAggregateID, roleType, rolePayload, roleHeaders, roleCreatedAt}
}
