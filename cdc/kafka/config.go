package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Config says how to reach the cluster and which names the relay owns there.
type Config struct {
	Brokers []string
	TLS     TLS
	SASL    SASL

	Relay                 string // the position record's key
	TransactionalIDPrefix string
	TransactionRing       int // ids <prefix>.0 ... <prefix>.n-1; default 1
	PositionTopic         string
	TransactionTimeout    time.Duration // default 15 s
	Compression           string        // none (default), lz4, zstd, snappy, gzip
	Mode                  cdc.Mode      // what Open makes; default exactly-once

	// CreateTopics lets Topic create a missing topic with Partitions (12) and
	// Replication (3).
	CreateTopics bool
	Partitions   int32
	Replication  int16

	ClientID string // default cdc-relay
	// Hooks are added to every client, for kprom; what they are told of is said at
	// sharedHook.
	Hooks []kgo.Hook
	// Dial replaces the network dialer under TLS, for tests; nil is net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger: nil discards.
	Logger *slog.Logger
}

// TLS is the client's side of TLS; files are read anew at every connection.
type TLS struct {
	Enabled  bool   // true also when any file is set
	CAFile   string // PEM; empty: the system's roots
	CertFile string // PEM; for mutual TLS
	KeyFile  string
}

func (t TLS) enabled() bool {
	return t.Enabled || t.CAFile != "" || t.CertFile != "" || t.KeyFile != ""
}

// SASL authenticates the relay; the zero value is none.
type SASL struct {
	Mechanism string // SCRAM-SHA-512, SCRAM-SHA-256, PLAIN (only over TLS)
	Username  string
	// Password is called at every connection, so that a rotated secret is used.
	Password func() (string, error)
}

// The SASL mechanisms.
const (
	mechanismSCRAM512 = "SCRAM-SHA-512"
	mechanismSCRAM256 = "SCRAM-SHA-256"
	mechanismPlain    = "PLAIN"
)

// Bounds of the configuration.
const (
	defaultTransactionTimeout = 15 * time.Second
	maxTransactionTimeout     = 15 * time.Minute // the broker's default transaction.max.timeout.ms
	maxTransactionRing        = 16
	defaultPartitions         = 12
	defaultReplication        = 3
	defaultClientID           = "cdc-relay"
)

func (c Config) withDefaults() Config {
	if c.TransactionRing == 0 {
		c.TransactionRing = 1
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = defaultTransactionTimeout
	}
	if c.Mode == "" {
		c.Mode = cdc.ExactlyOnce
	}
	if c.Compression == "" {
		c.Compression = "none"
	}
	if c.Partitions == 0 {
		c.Partitions = defaultPartitions
	}
	if c.Replication == 0 {
		c.Replication = defaultReplication
	}
	if c.ClientID == "" {
		c.ClientID = defaultClientID
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate returns all problems at once. It reads no file and calls nobody.
func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("kafka: "+format, args...)) }

	if len(c.Brokers) == 0 {
		bad("brokers: none given")
	}
	for _, broker := range c.Brokers {
		host, port, err := net.SplitHostPort(broker)
		if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil {
			bad("brokers: %q is not host:port", broker)
		}
	}
	if c.Relay == "" {
		bad("relay: no name given")
	}
	if c.TransactionalIDPrefix == "" {
		bad("transactional_id_prefix: none given")
	}
	if c.TransactionRing < 1 || c.TransactionRing > maxTransactionRing {
		bad("transaction_ring: %d is not between 1 and %d", c.TransactionRing, maxTransactionRing)
	}
	if why := invalidTopicName(cdc.Topic(c.PositionTopic)); why != "" {
		bad("position_topic: %q %s", c.PositionTopic, why)
	}
	if c.TransactionTimeout < time.Millisecond || c.TransactionTimeout > maxTransactionTimeout {
		bad("transaction_timeout: %s is not between 1ms and %s", c.TransactionTimeout, maxTransactionTimeout)
	}
	if _, ok := compressions[c.Compression]; !ok {
		bad("compression: %q is none of none, lz4, zstd, snappy, gzip", c.Compression)
	}
	if c.Mode != cdc.ExactlyOnce && c.Mode != cdc.AtLeastOnce {
		bad("mode: %q is none of exactly-once, at-least-once", c.Mode)
	}
	if c.Partitions < 1 {
		bad("partitions: %d is less than 1", c.Partitions)
	}
	if c.Replication < 1 {
		bad("replication: %d is less than 1", c.Replication)
	}
	return errors.Join(append(errs, c.validateSecurity()...)...)
}

func (c *Config) validateSecurity() []error {
	var errs []error
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		errs = append(errs, errors.New("kafka: tls: cert_file and key_file go together"))
	}
	switch c.SASL.Mechanism {
	case "":
		if c.SASL.Username != "" || c.SASL.Password != nil {
			errs = append(errs, errors.New("kafka: sasl: username or password without mechanism"))
		}
		return errs
	case mechanismPlain:
		if !c.TLS.enabled() {
			errs = append(errs, errors.New("kafka: sasl: PLAIN sends the password readable and is refused without tls; use SCRAM-SHA-512 or enable tls"))
		}
	case mechanismSCRAM256, mechanismSCRAM512:
	default:
		errs = append(errs, fmt.Errorf("kafka: sasl: mechanism %q is none of SCRAM-SHA-512, SCRAM-SHA-256, PLAIN", c.SASL.Mechanism))
	}
	if c.SASL.Username == "" {
		errs = append(errs, errors.New("kafka: sasl: mechanism without username"))
	}
	if c.SASL.Password == nil {
		errs = append(errs, errors.New("kafka: sasl: mechanism without password"))
	}
	return errs
}

// transactionalIDs are the ids of the configured ring.
func (c *Config) transactionalIDs() cdc.TransactionalIDs {
	return cdc.TransactionalIDs{Prefix: c.TransactionalIDPrefix, Ring: c.TransactionRing}
}

// ringIDs spells out the ids <prefix>.0 ... <prefix>.<ring-1>.
func ringIDs(ids cdc.TransactionalIDs) []string {
	names := make([]string, 0, max(0, ids.Ring))
	for i := range ids.Ring {
		names = append(names, ids.Prefix+"."+strconv.Itoa(i))
	}
	return names
}
