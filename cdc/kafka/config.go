package kafka

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
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

	// CreateTopics lets Topic create a missing topic with Partitions (12) and
	// Replication (3).
	CreateTopics bool
	Partitions   int32
	Replication  int16

	ClientID string // default cdc-relay
	// Hooks are added to every client, for kprom.
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

// SASL authenticates the relay; the zero value is none.
type SASL struct {
	Mechanism string // SCRAM-SHA-512, SCRAM-SHA-256, PLAIN (only over TLS)
	Username  string
	// Password is called at every connection, so that a rotated secret is used.
	Password func() (string, error)
}
