package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// clientName is what DBAs and Kafka operators see of this process.
func clientName() string { return "cdc-relay/" + readVersion().Version }

func newRouter(c *loadedConfig) (*routing.Router, error) {
	return routing.New(routing.Config{
		Format: c.Routing.Format, Source: c.Routing.Source,
		Topic: c.Routing.Topic, Key: c.Routing.Key,
		AllowedTopics: c.Routing.AllowedTopics, ReservedTopics: []cdc.Topic{cdc.Topic(c.Kafka.PositionTopic), cdc.Topic(c.ParkedTopic)},
		ParkedTopic: cdc.Topic(c.ParkedTopic),
		Timestamp:   c.Routing.Timestamp, Columns: c.Postgres.Columns,
		PositionHeader: c.Routing.PositionHeader, Debezium: c.Routing.Debezium,
	})
}

// postgresConfig is the Postgres side with the relay's own role.
func postgresConfig(c *loadedConfig, required []string, logger *slog.Logger) postgres.Config {
	id := c.Postgres.Columns["id"]
	if id == "" {
		id = "id"
	}
	return postgres.Config{
		DSN:           secretReader("postgres.dsn_file", c.Postgres.DSN, c.Postgres.DSNFile),
		AllowInsecure: c.Postgres.AllowInsecure, ApplicationName: clientName(),
		Slot: c.Postgres.Slot, Publication: c.Postgres.Publication, Table: c.Postgres.Table,
		IDColumn: id, RequiredColumns: required, Logger: logger,
	}
}

// adminPostgresConfig is the Postgres side with the role that init uses.
func adminPostgresConfig(c *loadedConfig, required []string, logger *slog.Logger) postgres.Config {
	cfg := postgresConfig(c, required, logger)
	if c.Postgres.AdminDSN != "" || c.Postgres.AdminDSNFile != "" {
		cfg.DSN = secretReader("postgres.admin_dsn_file", c.Postgres.AdminDSN, c.Postgres.AdminDSNFile)
	}
	return cfg
}

func kafkaConfig(c *loadedConfig, logger *slog.Logger) kafka.Config {
	k := &c.Kafka
	cfg := kafka.Config{
		Brokers: k.Brokers,
		TLS:     kafka.TLS{Enabled: k.TLS.Enabled, CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile},
		SASL:    kafka.SASL{Mechanism: k.SASL.Mechanism, Username: k.SASL.Username},
		Relay:   c.Relay, TransactionalIDPrefix: k.TransactionalIDPrefix, TransactionRing: k.TransactionRing,
		PositionTopic: k.PositionTopic, TransactionTimeout: k.TransactionTimeout, Compression: k.Compression,
		CreateTopics: k.CreateTopics, Partitions: int32(k.Partitions), Replication: int16(k.Replication),
		ClientID: clientName(), Logger: logger, Mode: cdc.Mode(c.Delivery),
	}
	if k.SASL.Mechanism != "" {
		cfg.SASL.Password = secretReader("kafka.sasl.password_file", k.SASL.Password, k.SASL.PasswordFile)
	}
	return cfg
}

// secretReader returns the secret, read anew from the file at every call where
// one is configured. Spaces and line ends around it are not part of it.
func secretReader(setting string, secret Secret, file string) func() (string, error) {
	if file == "" {
		return func() (string, error) { return string(secret), nil }
	}
	return func() (string, error) {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%s: %w", setting, err)
		}
		text := strings.TrimSpace(string(content))
		if text == "" {
			return "", fmt.Errorf("%s: %s is empty", setting, file)
		}
		return text, nil
	}
}

// parkBadRows is the on_bad_row that sets bad rows aside; halt is the other.
const parkBadRows = "park"

// parker is nil where bad rows halt.
func parker(c *loadedConfig, router *routing.Router) cdc.Parker {
	if c.OnBadRow != parkBadRows {
		return nil
	}
	return router.Park
}

// identity is what the relay writes about itself into position records.
func identity(c *loadedConfig) cdc.Identity {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return cdc.Identity{
		Slot:             c.Postgres.Slot,
		TransactionalIDs: cdc.TransactionalIDs{Prefix: c.Kafka.TransactionalIDPrefix, Ring: c.Kafka.TransactionRing},
		RelayVersion:     readVersion().Version, Host: host,
	}
}

// exactTopics are the topics that can be created and checked by name: those
// allowed, and the parked topic where it is used.
func exactTopics(c *loadedConfig) []cdc.Topic {
	var topics []cdc.Topic
	if c.OnBadRow == parkBadRows {
		topics = append(topics, cdc.Topic(c.ParkedTopic))
	}
	for _, topic := range c.Routing.AllowedTopics {
		if !strings.HasSuffix(topic, "*") {
			topics = append(topics, cdc.Topic(topic))
		}
	}
	return topics
}
