package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/notifier"
)

const (
	envPrefix = "NOTIFIER_"
	envConfig = envPrefix + "CONFIG"
)

// Config is the whole configuration. Its tags are the only schema:
//
//	key      name in the file; the path joins keys with dots
//	default  text of the default
//	doc      one sentence
type Config struct {
	Kafka        KafkaConfig    `key:"kafka"`
	Postgres     PostgresConfig `key:"postgres"`
	Slack        SlackConfig    `key:"slack"`
	Inbox        InboxConfig    `key:"inbox"`
	MaxAge       time.Duration  `key:"max_age" default:"1h" doc:"Events older than this when their turn comes are not posted; 0 is no limit."`
	DrainTimeout time.Duration  `key:"drain_timeout" default:"20s" doc:"How long a stop tries to note what was posted."`
	Admin        AdminConfig    `key:"admin"`
	Log          LogConfig      `key:"log"`
}

// KafkaConfig says what to consume.
type KafkaConfig struct {
	Brokers         []string   `key:"brokers" doc:"Bootstrap brokers as host:port."`
	Topic           string     `key:"topic" default:"payment-event" doc:"Topic of the events."`
	Group           string     `key:"group" default:"notifier" doc:"Consumer group."`
	InstanceID      string     `key:"instance_id" doc:"Static member id, unique in the group; spares rebalances at restarts."`
	DeadLetterTopic string     `key:"dead_letter_topic" doc:"Default: <topic>.<group>.dlq."`
	CreateTopics    bool       `key:"create_topics" default:"false" doc:"Create the dead letter topic if it is missing."`
	Replication     int        `key:"replication" default:"3" doc:"Replication factor of a topic that is created."`
	TLS             TLSConfig  `key:"tls"`
	SASL            SASLConfig `key:"sasl"`
}

// TLSConfig is the client's side of TLS to Kafka.
type TLSConfig struct {
	Enabled  bool   `key:"enabled" default:"false" doc:"Use TLS; also switched on by any of the files."`
	CAFile   string `key:"ca_file" doc:"PEM file of the authorities to trust; default: the system's."`
	CertFile string `key:"cert_file" doc:"PEM file of the client certificate."`
	KeyFile  string `key:"key_file" doc:"PEM file of the client's private key."`
}

// SASLConfig authenticates to Kafka.
type SASLConfig struct {
	Mechanism    string `key:"mechanism" doc:"SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN (only over TLS). Default: none."`
	Username     string `key:"username" doc:"SASL user."`
	Password     Secret `key:"password" doc:"SASL password."`
	PasswordFile string `key:"password_file" doc:"File that holds the SASL password; read again at every connection."`
}

// PostgresConfig says where the inbox is.
type PostgresConfig struct {
	DSN           Secret `key:"dsn" doc:"Connection string of the database with the inbox."`
	DSNFile       string `key:"dsn_file" doc:"File that holds the connection string; read again at every connect."`
	AllowInsecure bool   `key:"allow_insecure" default:"false" doc:"Permit sslmodes weaker than verify-full over TCP to other hosts than loopback."`
}

// SlackConfig is the destination.
type SlackConfig struct {
	WebhookURL     Secret        `key:"webhook_url" doc:"The incoming webhook; whoever has the URL can post."`
	WebhookURLFile string        `key:"webhook_url_file" doc:"File that holds the URL; read again at every post."`
	AllowInsecure  bool          `key:"allow_insecure" default:"false" doc:"Permit http to other hosts than loopback."`
	Destination    string        `key:"destination" default:"slack" doc:"Name of the channel in metrics and logs."`
	Interval       time.Duration `key:"interval" default:"1s" doc:"Least time between two messages; Slack permits about one a second. 0 is none."`
	Timeout        time.Duration `key:"timeout" default:"10s" doc:"Of one post."`
	RefusedRetry   time.Duration `key:"refused_retry" default:"1m" doc:"How often a destination that refuses (403, 404, 410) is asked again."`
	TraceURL       string        `key:"trace_url" doc:"Link to an event's trace; {trace_id} is replaced."`
}

// InboxConfig is the memory of what was posted.
type InboxConfig struct {
	Repeat    string        `key:"repeat" default:"at_least_once" doc:"An event that may have been posted: at_least_once posts it again with a note, at_most_once gives it up."`
	Retention time.Duration `key:"retention" default:"720h" doc:"How long settled events are remembered."`
}

// AdminConfig is the admin port.
type AdminConfig struct {
	Listen string `key:"listen" default:"127.0.0.1:9792" doc:"Address of /metrics, /livez and /readyz."`
}

// LogConfig is the log on stderr.
type LogConfig struct {
	Level  string `key:"level" default:"info" doc:"Lowest level: debug, info, warn or error."`
	Format string `key:"format" default:"auto" doc:"text or json; auto is text on a terminal."`
}

// Secret is never printed.
type Secret string

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// source returns how to get a secret: from its file each time, or as it is; nil
// without either.
func source(value Secret, file string) func() (string, error) {
	switch {
	case file != "":
		return func() (string, error) {
			content, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			return strings.TrimSpace(string(content)), nil
		}
	case value != "":
		return func() (string, error) { return string(value), nil }
	default:
		return nil
	}
}

// validate checks what package notifier does not: all problems at once.
func (c *Config) validate() error {
	var errs []error
	add := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, s := range []struct {
		path  string
		value Secret
		file  string
	}{
		{"postgres.dsn", c.Postgres.DSN, c.Postgres.DSNFile},
		{"slack.webhook_url", c.Slack.WebhookURL, c.Slack.WebhookURLFile},
		{"kafka.sasl.password", c.Kafka.SASL.Password, c.Kafka.SASL.PasswordFile},
	} {
		add(s.value == "" || s.file == "", "%s and %s_file are both set: want one of them", s.path, s.path)
	}
	_, _, err := net.SplitHostPort(c.Admin.Listen)
	add(err == nil, "admin.listen: want host:port")
	var level slog.Level
	add(level.UnmarshalText([]byte(c.Log.Level)) == nil, "log.level: want debug, info, warn or error")
	add(c.Log.Format == "auto" || c.Log.Format == "text" || c.Log.Format == "json", "log.format: want auto, text or json")
	add(c.Kafka.Replication >= 1 && c.Kafka.Replication <= 100, "kafka.replication: want 1 to 100")
	add(c.Slack.Timeout > 0 && c.Slack.Timeout <= 30*time.Second, "slack.timeout: want more than 0 and at most 30s, or a rebalance may time out")
	add(c.Slack.RefusedRetry > 0 && c.Inbox.Retention > 0 && c.DrainTimeout > 0, "slack.refused_retry, inbox.retention and drain_timeout: want more than 0")
	if c.Slack.WebhookURL != "" {
		if err := notifier.CheckWebhookURL(string(c.Slack.WebhookURL), c.Slack.AllowInsecure); err != nil {
			errs = append(errs, fmt.Errorf("slack.webhook_url: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) slack() notifier.SlackConfig {
	return notifier.SlackConfig{
		WebhookURL: source(c.Slack.WebhookURL, c.Slack.WebhookURLFile), AllowInsecure: c.Slack.AllowInsecure, Destination: c.Slack.Destination,
		Interval: c.Slack.Interval, Timeout: c.Slack.Timeout, RefusedRetry: c.Slack.RefusedRetry, TraceURL: c.Slack.TraceURL,
	}
}

func (c *Config) notifier(pool *pgxpool.Pool, registerer prometheus.Registerer, logger *slog.Logger) (*notifier.Notifier, error) {
	k := c.Kafka
	return notifier.New(notifier.Config{
		Kafka: notifier.KafkaConfig{
			Brokers: k.Brokers, TLS: notifier.TLSConfig(k.TLS),
			SASL:  notifier.SASLConfig{Mechanism: k.SASL.Mechanism, Username: k.SASL.Username, Password: source(k.SASL.Password, k.SASL.PasswordFile)},
			Topic: k.Topic, Group: k.Group, InstanceID: k.InstanceID, DeadLetterTopic: k.DeadLetterTopic,
			CreateDeadLetterTopic: k.CreateTopics, Replication: int16(k.Replication), //nolint:gosec // checked to be at most 100
		},
		Pool: pool, Slack: c.slack(), MaxAge: c.MaxAge, Repeat: notifier.RepeatPolicy(c.Inbox.Repeat), Retention: c.Inbox.Retention,
		DrainTimeout: c.DrainTimeout, Registerer: registerer, Logger: logger,
	})
}

// pool does not connect yet.
func (c *Config) pool(ctx context.Context) (*pgxpool.Pool, error) {
	dsn := source(c.Postgres.DSN, c.Postgres.DSNFile)
	if dsn == nil {
		return nil, errors.New("postgres.dsn or postgres.dsn_file is missing")
	}
	text, err := dsn()
	if err != nil {
		return nil, fmt.Errorf("postgres.dsn_file: %w", err)
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		// The library's words may quote the password.
		return nil, errors.New("postgres.dsn: want postgres://user:password@host/database or key=value pairs")
	}
	if !c.Postgres.AllowInsecure {
		if err := checkTransport(config.ConnConfig); err != nil {
			return nil, err
		}
	}
	config.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		text, err := dsn()
		if err != nil {
			return fmt.Errorf("postgres.dsn_file: %w", err)
		}
		if fresh, err := pgx.ParseConfig(text); err == nil {
			conn.User, conn.Password = fresh.User, fresh.Password
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, errors.New("postgres.dsn: no pool can be made of it")
	}
	return pool, nil
}

// checkTransport refuses connections that somebody in between could read.
func checkTransport(config *pgx.ConnConfig) error {
	weak := func(host string, transport *tls.Config) bool {
		ip := net.ParseIP(host)
		local := filepath.IsAbs(host) || host == "localhost" || ip != nil && ip.IsLoopback()
		return !local && (transport == nil || transport.InsecureSkipVerify)
	}
	bad := weak(config.Host, config.TLSConfig)
	for _, fallback := range config.Fallbacks {
		bad = bad || weak(fallback.Host, fallback.TLSConfig)
	}
	if bad {
		return errors.New("postgres.dsn: the connection is not protected: set sslmode=verify-full, or postgres.allow_insecure")
	}
	return nil
}
