package relaytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

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
	// TransactionRing is the number of transactional ids; default 2, as the relay's.
	TransactionRing int
	// Extra is YAML appended to the configuration: whole top-level keys that it
	// does not have.
	Extra string
}

// Environment is everything that one relay needs, and what tests need to know
// of it.
type Environment struct {
	EnvironmentConfig

	Relay         string
	Source        string // what events name as theirs
	Database      string
	Slot          string
	Publication   string
	Topic         string // rows name it in their aggregatetype
	PositionTopic string
	AdminAddr     string
	ConfigPath    string
}

// Replica is the same relay once more: another configuration file, with an admin
// server of its own.
func (e *Environment) Replica(t testing.TB) *Environment {
	t.Helper()
	replica := *e
	replica.AdminAddr = cdctest.Address(t)
	replica.ConfigPath = filepath.Join(t.TempDir(), "replica.yaml")
	if err := os.WriteFile(replica.ConfigPath, []byte(replica.Config()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &replica
}

// Beside is another relay on the same outbox and topic, with a publication, a
// slot and a position of its own. Its publication has to exist.
func (e *Environment) Beside(t testing.TB, publication string) *Environment {
	t.Helper()
	other := *e
	other.Relay = fmt.Sprintf("t%dx%d", os.Getpid(), relays.Add(1))
	other.Slot, other.Publication = other.Relay+"_outbox", publication
	other.PositionTopic, other.AdminAddr = e.Kafka.TopicName(t), cdctest.Address(t)
	other.ConfigPath = filepath.Join(t.TempDir(), "beside.yaml")
	if err := os.WriteFile(other.ConfigPath, []byte(other.Config()), 0o600); err != nil {
		t.Fatal(err)
	}
	other.run(t, "init", "--apply")
	return &other
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
	if cfg.TransactionRing == 0 {
		cfg.TransactionRing = 2
	}
	relay := fmt.Sprintf("t%dx%d", os.Getpid(), relays.Add(1))
	e := &Environment{
		EnvironmentConfig: cfg,
		Relay:             relay,
		Source:            "/" + relay,
		Database:          cfg.Postgres.Database(t),
		Slot:              relay + "_outbox",
		Publication:       relay + "_outbox",
		Topic:             cfg.Kafka.Topic(t, cfg.Partitions),
		PositionTopic:     cfg.Kafka.TopicName(t),
		AdminAddr:         cdctest.Address(t),
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
	return MustRun(t, options.Program())
}

// Options run the relay.
func (e *Environment) Options() Options {
	return Options{Binary: e.Binary, ConfigPath: e.ConfigPath, Admin: e.AdminAddr}
}
