package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Config is the whole configuration. Its tags are the only schema: file, env,
// --set, `config show`, `config example` and suggestions are made from them.
//
//	key      name in the file; the path joins keys with dots
//	default  text of the default; absent: empty, or derived from the relay's name
//	derived  default in which <relay> and <relay_> (dashes as underscores) are replaced
//	oneof    the allowed words
//	min max  inclusive bounds of numbers, durations and sizes
//	example  value shown by `config example` where there is no default
//	doc      one sentence
type Config struct {
	Relay        string         `key:"relay" example:"payments" doc:"Name of this relay, for life: it names the position record, the position topic and the transactional ids."`
	Postgres     PostgresConfig `key:"postgres"`
	Kafka        KafkaConfig    `key:"kafka"`
	Delivery     string         `key:"delivery" default:"exactly-once" oneof:"exactly-once,at-least-once" doc:"Delivery guarantee. at-least-once has lower latency, repeats rows after a restart and notices neither a moved slot nor a divergence; there is no way back under the same relay name."`
	Routing      RoutingConfig  `key:"routing"`
	OnBadRow     string         `key:"on_bad_row" default:"halt" oneof:"halt,park" doc:"What to do with a row that cannot become a record: halt stops for a person; park tells of it in the parked topic, in its place, and goes on. Nothing is ever skipped by itself."`
	ParkedTopic  string         `key:"parked_topic" derived:"cdc-relay.parked.<relay>" doc:"Topic of the rows that on_bad_row: park sets aside, with the reason in headers."`
	Batch        BatchConfig    `key:"batch"`
	DrainTimeout time.Duration  `key:"drain_timeout" default:"20s" min:"1s" max:"10m" doc:"How long a stop waits for the Kafka transaction in flight; keep it below the grace period of whoever sends the signal."`
	Admin        AdminConfig    `key:"admin"`
	Log          LogConfig      `key:"log"`
}

// PostgresConfig says where the outbox is.
type PostgresConfig struct {
	DSN           Secret            `key:"dsn" doc:"Connection string of the relay's role (LOGIN REPLICATION). PG* variables of the environment are not merged."`
	DSNFile       string            `key:"dsn_file" example:"/run/secrets/dsn" doc:"File that holds the connection string; read again at every connect, so that a rotated password is picked up."`
	AdminDSN      Secret            `key:"admin_dsn" doc:"Connection string for init and outbox prune: a role that may create the publication and the outbox table, and owns the table. Default: dsn."`
	AdminDSNFile  string            `key:"admin_dsn_file" doc:"File that holds the connection string for init."`
	AuditDSN      Secret            `key:"audit_dsn" doc:"Connection string for audit, backfill, resync and parked retry: a role that may SELECT the outbox table. Default: dsn."`
	AuditDSNFile  string            `key:"audit_dsn_file" doc:"File that holds the connection string for audit, backfill, resync and parked retry."`
	AllowInsecure bool              `key:"allow_insecure" default:"false" doc:"Permit sslmodes weaker than verify-full over TCP to other hosts than loopback."`
	Slot          string            `key:"slot" derived:"<relay_>_outbox" doc:"Replication slot."`
	Publication   string            `key:"publication" derived:"<relay_>_outbox" doc:"Publication that contains the outbox table."`
	Table         string            `key:"table" default:"public.outbox" doc:"The outbox table as schema.table."`
	Columns       map[string]string `key:"columns" doc:"Own names of the columns id, aggregatetype, aggregateid, type, payload, headers and created_at."`
}

// KafkaConfig says how to reach Kafka and which names the relay owns there.
type KafkaConfig struct {
	Brokers               []string      `key:"brokers" example:"[kafka:9092]" doc:"Bootstrap brokers as host:port."`
	TLS                   TLSConfig     `key:"tls"`
	SASL                  SASLConfig    `key:"sasl"`
	TransactionalIDPrefix string        `key:"transactional_id_prefix" derived:"cdc-relay.<relay>" doc:"The transactional ids are <prefix>.0 to <prefix>.n-1."`
	PositionTopic         string        `key:"position_topic" derived:"cdc-relay.position.<relay>" doc:"Topic of the position record: one partition, compacted, used by this relay only."`
	TransactionTimeout    time.Duration `key:"transaction_timeout" default:"15s" min:"1s" max:"15m" doc:"After this the broker aborts a transaction; consumers wait as long behind a relay that died."`
	TransactionRing       int           `key:"transaction_ring" default:"2" min:"1" max:"16" doc:"Number of transactional ids used in turn; with one, each Kafka transaction waits for the markers of the one before."`
	Compression           string        `key:"compression" default:"none" oneof:"none,lz4,zstd,snappy,gzip" doc:"Compression of record batches."`
	CreateTopics          bool          `key:"create_topics" default:"false" doc:"Create missing topics that allowed_topics permits."`
	Partitions            int           `key:"partitions" default:"12" min:"1" max:"10000" doc:"Partitions of topics that are created."`
	Replication           int           `key:"replication" default:"3" min:"1" max:"100" doc:"Replication factor of topics that are created, the position topic included."`
}

// TLSConfig is the client's side of TLS to Kafka.
type TLSConfig struct {
	Enabled  bool   `key:"enabled" default:"false" doc:"Use TLS; also switched on by any of the files."`
	CAFile   string `key:"ca_file" doc:"PEM file of the authorities to trust; default: the system's."`
	CertFile string `key:"cert_file" doc:"PEM file of the client certificate."`
	KeyFile  string `key:"key_file" doc:"PEM file of the client's private key."`
}

// SASLConfig authenticates the relay to Kafka.
type SASLConfig struct {
	Mechanism    string `key:"mechanism" oneof:"SCRAM-SHA-512,SCRAM-SHA-256,PLAIN" doc:"SASL mechanism; PLAIN only over TLS. Default: none."`
	Username     string `key:"username" doc:"SASL user."`
	Password     Secret `key:"password" doc:"SASL password."`
	PasswordFile string `key:"password_file" doc:"File that holds the SASL password; read again at every connection."`
}

// RoutingConfig says how rows become records.
type RoutingConfig struct {
	Format         string            `key:"format" default:"cloudevents" oneof:"cloudevents,cloudevents-structured,raw,debezium" doc:"Record format; debezium is compatible with Debezium's Outbox Event Router."`
	Source         string            `key:"source" derived:"/<relay>" doc:"The ce_source of every event."`
	Topic          string            `key:"topic" default:"{aggregatetype}-event" doc:"Topic of a row; columns in braces."`
	Key            string            `key:"key" default:"{aggregateid}" doc:"Record key of a row; columns in braces."`
	AllowedTopics  []string          `key:"allowed_topics" example:"[payment-event]" doc:"Topics that rows may go to, exact or prefix*; a row that routes elsewhere is a bad row."`
	Timestamp      string            `key:"timestamp" default:"commit" oneof:"commit,produce" doc:"Record timestamp: the commit time of the row's transaction, or the time of producing."`
	PositionHeader bool              `key:"position_header" default:"false" doc:"Format debezium only: also send the header cdc-relay-position."`
	Debezium       map[string]string `key:"debezium" doc:"The Outbox Event Router's options under their own names."`
}

// BatchConfig bounds one Kafka transaction, and with it the relay's memory.
type BatchConfig struct {
	MaxRows       int  `key:"max_rows" default:"2000" min:"1" max:"1000000" doc:"Rows in one Kafka transaction; a larger database transaction is split. Memory grows with it."`
	MaxBytes      Size `key:"max_bytes" default:"1MiB" min:"64KiB" max:"1GiB" doc:"Bytes in one Kafka transaction; two such batches exist at most. A larger record makes a batch of its own."`
	MaxPartitions int  `key:"max_partitions" default:"500" min:"1" max:"100000" doc:"Partitions in one Kafka transaction; each costs a commit marker."`
}

// AdminConfig is the HTTP port for probes, metrics and status.
type AdminConfig struct {
	Listen string `key:"listen" default:"127.0.0.1:9790" doc:"Address of the admin port."`
	Pprof  bool   `key:"pprof" default:"false" doc:"Serve /debug/pprof; only on loopback."`
}

// LogConfig is about the log on stderr.
type LogConfig struct {
	Level  string `key:"level" default:"info" oneof:"debug,info,warn,error" doc:"Lowest level that is logged."`
	Format string `key:"format" default:"auto" oneof:"auto,text,json" doc:"Log format; auto is text on a terminal and JSON otherwise."`
}

// Secret is a text that never appears in output. The zero value is no secret.
type Secret string

// masked stands for a secret wherever one would be printed.
const masked = "***"

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString masks the secret under %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Size is a number of bytes, written with a unit: 4MiB.
type Size int64

// sizeUnits has the larger units first, so that String finds the largest that
// divides the size.
var sizeUnits = []struct {
	name  string
	bytes Size
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// String prints the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && strings.Contains(u.name, "i") && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// derive fills the settings whose default depends on the relay's name.
func derive(template, relay string) string {
	return strings.NewReplacer("<relay>", relay, "<relay_>", strings.ReplaceAll(relay, "-", "_")).Replace(template)
}
