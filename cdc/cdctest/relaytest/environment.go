package relaytest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// EnvironmentConfig says what one relay needs. Postgres, Kafka and Binary are
// required.
type EnvironmentConfig struct {
	Postgres *cdctest.Postgres
	Kafka    *cdctest.Kafka
	Binary   string // that makes the environment by its init command
	// Partitions of the topic; default 6.
	Partitions int32
	// Extra is YAML appended to the configuration: whole top-level keys that it
	// does not have.
	Extra string
}

// Environment is everything that one relay needs, and what tests need to know
// of it.
type Environment struct {
	EnvironmentConfig

	Relay         string
	Database      string
	Slot          string
	Publication   string
	Topic         string // rows name it in their aggregatetype
	PositionTopic string
	AdminAddr     string
	ConfigPath    string
}

// role is what the relay connects as. It has LOGIN, REPLICATION and CONNECT and
// nothing else.
const role = "cdc_relay"

// relays counts the relays of this process, for their names.
var relays atomic.Int64

// NewEnvironment makes a database with an outbox, a topic, and with init the
// publication, the slot and the genesis position.
func NewEnvironment(t testing.TB, cfg EnvironmentConfig) *Environment {
	t.Helper()
	if cfg.Partitions == 0 {
		cfg.Partitions = 6
	}
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	relay := fmt.Sprintf("t%dx%d", os.Getpid(), relays.Add(1))
	e := &Environment{
		EnvironmentConfig: cfg,
		Relay:             relay,
		Database:          cfg.Postgres.Database(t),
		Slot:              relay + "_outbox",
		Publication:       relay + "_outbox",
		Topic:             cfg.Kafka.Topic(t, cfg.Partitions),
		PositionTopic:     cfg.Kafka.TopicName(t),
		AdminAddr:         addr,
		ConfigPath:        filepath.Join(t.TempDir(), "relay.yaml"),
	}
	ensureRole(t, cfg.Postgres)
	if err := os.WriteFile(e.ConfigPath, []byte(e.Config()), 0o600); err != nil {
		t.Fatal(err)
	}
	e.run(t, "init", "--apply", "--with-table")
	return e
}

// ensureRole makes the relay's role; tests of several processes and several
// databases share it.
func ensureRole(t testing.TB, postgres *cdctest.Postgres) {
	t.Helper()
	_, err := postgres.Connect(t, "postgres").Exec(t.Context(), "CREATE ROLE "+role+" LOGIN REPLICATION")
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	// duplicate_object, or unique_violation where somebody else makes it now
	if err != nil && (!ok || pgErr.Code != "42710" && pgErr.Code != "23505") {
		t.Fatalf("create role %s: %v", role, err)
	}
}

// run runs a command to its end, which must be good.
func (e *Environment) run(t testing.TB, command string, args ...string) *Process {
	t.Helper()
	options := e.Options()
	options.Command, options.Args = command, args
	p := Start(t, options)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil || code != 0 {
		t.Fatalf("cdc-relay %s: exit code %d, %v\n%s%s", command, code, err, p.Stdout(), p.Stderr())
	}
	return p
}

// Options run the relay.
func (e *Environment) Options() Options {
	return Options{Binary: e.Binary, ConfigPath: e.ConfigPath, Admin: e.AdminAddr}
}
