package notifier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaConfig says how to reach the cluster and what to consume.
type KafkaConfig struct {
	Brokers []string
	TLS     TLSConfig
	SASL    SASLConfig

	Topic string // default payment-event
	Group string // default notifier
	// InstanceID makes the membership static: a restart within the session
	// timeout moves no partitions. It must be unique in the group. Empty: dynamic.
	InstanceID string
	// DeadLetterTopic: default <topic>.<group>.dlq.
	DeadLetterTopic string
	// CreateDeadLetterTopic makes it if it is missing, with one partition and
	// Replication (3) replicas.
	CreateDeadLetterTopic bool
	Replication           int16

	// SessionTimeout: after it the group believes a silent member dead; 0 is
	// franz-go's 45 s.
	SessionTimeout time.Duration
}

// TLSConfig is the client's side of TLS; files are read anew at every connection.
type TLSConfig struct {
	Enabled  bool   // true also when any file is set
	CAFile   string // PEM; empty: the system's roots
	CertFile string // PEM; for mutual TLS
	KeyFile  string
}

func (t TLSConfig) enabled() bool {
	return t.Enabled || t.CAFile != "" || t.CertFile != "" || t.KeyFile != ""
}

// SASLConfig authenticates to Kafka; the zero value is none.
type SASLConfig struct {
	Mechanism string // SCRAM-SHA-512, SCRAM-SHA-256, PLAIN (only over TLS)
	Username  string
	// Password is called at every connection, so that a rotated secret is used.
	Password func() (string, error)
}

const (
	mechanismSCRAM512 = "SCRAM-SHA-512"
	mechanismSCRAM256 = "SCRAM-SHA-256"
	mechanismPlain    = "PLAIN"

	dialTimeout  = 10 * time.Second
	retryTimeout = 20 * time.Second
	// metadataMinAge is how long an error that needs fresh metadata waits.
	metadataMinAge = 250 * time.Millisecond
)

func (c KafkaConfig) withDefaults() KafkaConfig {
	if c.Topic == "" {
		c.Topic = "payment-event"
	}
	if c.Group == "" {
		c.Group = "notifier"
	}
	if c.DeadLetterTopic == "" {
		c.DeadLetterTopic = c.Topic + "." + c.Group + ".dlq"
	}
	if c.Replication == 0 {
		c.Replication = 3
	}
	return c
}

func (c KafkaConfig) validate() []error {
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
	if c.DeadLetterTopic == c.Topic {
		bad("dead_letter_topic: %q is the topic that is consumed", c.Topic)
	}
	if c.Replication < 1 {
		bad("replication: %d is less than 1", c.Replication)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: cert_file and key_file go together")
	}
	return append(errs, c.validateSASL()...)
}

func (c KafkaConfig) validateSASL() []error {
	var errs []error
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
	if c.SASL.Username == "" || c.SASL.Password == nil {
		errs = append(errs, errors.New("kafka: sasl: a mechanism needs username and password"))
	}
	return errs
}

// newClient makes a client of the cluster.
func (c KafkaConfig) newClient(log *slog.Logger, extra ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("notifier"),
		kgo.Dialer(c.dial),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RetryTimeout(retryTimeout),
		kgo.DisableClientMetrics(), // Close would wait for a last push
		kgo.WithLogger(clientLogger{log}),
	}
	if mechanism := c.SASL.mechanism(); mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	client, err := kgo.NewClient(append(opts, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	return client, nil
}

func (c KafkaConfig) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if !c.TLS.enabled() {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	config, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, network, addr)
}

// load reads the files anew, so that a rotated certificate needs no restart.
// The dialer takes the server's name from the address.
func (t TLSConfig) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read tls ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls ca_file %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load tls cert_file and key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (c SASLConfig) mechanism() sasl.Mechanism {
	scramAuth := func(context.Context) (scram.Auth, error) {
		password, err := c.Password()
		return scram.Auth{User: c.Username, Pass: password}, err
	}
	switch c.Mechanism {
	case mechanismSCRAM512:
		return scram.Sha512(scramAuth)
	case mechanismSCRAM256:
		return scram.Sha256(scramAuth)
	case mechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := c.Password()
			return plain.Auth{User: c.Username, Pass: password}, err
		})
	default:
		return nil
	}
}
