package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

const (
	database    = "demo" // where everything is
	partitions  = 6      // of the topic
	relaySource = "/payments"
)

// The relay's names, as it derives them from its own.
const (
	relayName     = "payments"
	outboxName    = relayName + "_outbox" // of slot and publication
	positionTopic = "cdc-relay.position." + relayName
)

// servers are the two servers that the path needs.
type servers struct {
	postgres *cdctest.PostgresServer
	kafka    *cdctest.KafkaServer
}

// startServers starts both. A port may be taken between its choice and its use:
// then the server is made anew, on another one.
func startServers(ctx context.Context) (*servers, error) {
	s := &servers{}
	var err error
	for range 3 {
		if s.postgres, err = startPostgres(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	for range 3 {
		if err != nil || s.kafka != nil {
			break
		}
		s.kafka, err = startKafka(ctx)
	}
	if err == nil {
		err = s.createDatabase(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func startPostgres(ctx context.Context) (*cdctest.PostgresServer, error) {
	server, err := cdctest.NewPostgresServer(cdctest.PostgresConfig{Settings: map[string]string{
		"track_commit_timestamp": "on", // what the audit judges the order by
	}})
	if err != nil {
		return nil, fmt.Errorf("make a PostgreSQL: %w", err)
	}
	if err := server.Start(ctx); err != nil {
		return nil, errors.Join(err, server.Remove())
	}
	return server, nil
}

func startKafka(ctx context.Context) (*cdctest.KafkaServer, error) {
	server, err := cdctest.NewKfakeServer()
	if err != nil {
		return nil, fmt.Errorf("make a broker: %w", err)
	}
	if err := server.Start(ctx); err != nil {
		return nil, errors.Join(err, server.Remove())
	}
	return server, nil
}

func (s *servers) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.postgres.DSN("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// dsn returns a connection string for a role.
func (s *servers) dsn(role string) string { return s.postgres.DSN(database, role) }

// outboxConfig is the outbox for an audit.
func (s *servers) outboxConfig() postgres.Config {
	return postgres.Config{
		DSN:  func() (string, error) { return s.dsn("outbox_auditor"), nil },
		Slot: outboxName, Publication: outboxName, Table: "public.outbox", ApplicationName: "demo",
	}
}

// kafkaConfig is the cluster for an audit, which only reads.
func (s *servers) kafkaConfig() kafka.Config {
	return kafka.Config{Brokers: s.kafka.Brokers(), Relay: relayName, TransactionalIDPrefix: "cdc-relay." + relayName, PositionTopic: positionTopic, ClientID: "demo"}
}

// remove stops both and deletes their data.
func (s *servers) remove() error {
	var errs []error
	if s.kafka != nil {
		errs = append(errs, s.kafka.Remove())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Remove())
	}
	return errors.Join(errs...)
}

// ports are the addresses that the processes listen on.
type ports struct {
	api, apiAdmin, relayAdmin, notifierAdmin string

	held []net.Listener // keep others away from usual ports until the processes start
}

// release lets the processes have their ports.
func (p *ports) release() error {
	var errs []error
	for _, listener := range p.held {
		errs = append(errs, listener.Close())
	}
	p.held = nil
	return errors.Join(errs...)
}

// choosePorts takes free ports, and with usual the usual port of each program
// where that is free. Release them.
func choosePorts(usual bool) (ports, error) {
	var p ports
	for _, choice := range []struct {
		address *string
		usual   int
	}{{&p.api, 8080}, {&p.relayAdmin, 9790}, {&p.apiAdmin, 9791}, {&p.notifierAdmin, 9792}} {
		if usual {
			if listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(choice.usual))); err == nil {
				p.held = append(p.held, listener)
				*choice.address = listener.Addr().String()
				continue
			}
		}
		// No other demo or test is given it, also while a process is not there.
		var err error
		if *choice.address, err = cdctest.FreeAddress(); err != nil {
			return p, errors.Join(err, p.release())
		}
	}
	return p, nil
}

// writeConfigs renders the configuration of relay and notifier.
func (s *servers) writeConfigs(dir string, p ports, slackURL string) error {
	brokers := strings.Join(s.kafka.Brokers(), ", ")
	relay := fmt.Sprintf(`relay: %s
postgres:
  dsn: %q
  admin_dsn: %q
kafka:
  brokers: [%s]
  create_topics: true
  partitions: %d
  replication: 1
routing:
  source: %s
  allowed_topics: [%s]
drain_timeout: 5s
admin:
  listen: %s
`, relayName, s.dsn("cdc_relay"), s.dsn("postgres"), brokers, partitions, relaySource, event.Topic, p.relayAdmin)
	notifier := fmt.Sprintf(`kafka:
  brokers: [%s]
  instance_id: demo
  create_topics: true
  replication: 1
postgres:
  dsn: %q
slack:
  webhook_url: %s
  interval: 0s
drain_timeout: 3s
admin:
  listen: %s
`, brokers, s.dsn("postgres"), slackURL, p.notifierAdmin)
	for name, text := range map[string]string{"relay.yaml": relay, "notifier.yaml": notifier} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}
