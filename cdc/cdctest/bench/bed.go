package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// partitions of every topic.
const partitions = 12

// bed is what measurements are made on.
type bed struct {
	postgres *cdctest.PostgresServer
	kafka    *cdctest.KafkaServer
	dir      string // binary and configurations
	binary   string
	relays   int // how many were made, for their names
	newKafka func() (*cdctest.KafkaServer, error)
}

// startBed starts everything; newKafka makes the broker.
func startBed(ctx context.Context, newKafka func() (*cdctest.KafkaServer, error)) (*bed, error) {
	b := &bed{newKafka: newKafka}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(err, b.remove())
	}
	return b, nil
}

func (b *bed) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "cdc-relay-bench-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	b.binary = filepath.Join(b.dir, "cdc-relay")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/cdc-relay/cdc-relay/cmd/cdc-relay")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	settings := map[string]string{"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "autovacuum": "off", "wal_sender_timeout": "60s"}
	if b.postgres, err = cdctest.NewPostgresServer(cdctest.PostgresConfig{Settings: settings}); err != nil {
		return err
	}
	if err := b.postgres.Start(ctx); err != nil {
		return err
	}
	if b.kafka, err = b.newKafka(); err != nil {
		return err
	}
	return b.kafka.Start(ctx)
}

func (b *bed) remove() error {
	var errs []error
	if b.kafka != nil {
		errs = append(errs, b.kafka.Remove())
	}
	if b.postgres != nil {
		errs = append(errs, b.postgres.Remove())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// describe says on what the figures were made.
func (b *bed) describe(opts options) environment {
	kafka := "fake Kafka"
	if b.kafka.Real() {
		kafka = "Apache Kafka of one node, acks=all"
	}
	return environment{
		CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		PostgresMajor: b.postgres.Major(), Kafka: kafka, Partitions: partitions, PayloadBytes: payloadBytes,
		Rows: opts.rows,
	}
}

func (b *bed) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, b.postgres.DSN(database, "postgres"))
}

// exec runs statements one by one on a connection of their own.
func (b *bed) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := b.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// relay is one configured relay with slot, topic and genesis position.
type relay struct {
	name     string
	database string
	topic    string
	slot     string
	config   string // path
	admin    string // host:port
}

// newRelay makes one in the database; the first one there makes the outbox and
// the publication too.
func (b *bed) newRelay(ctx context.Context, database string) (*relay, error) {
	b.relays++
	name := fmt.Sprintf("bench%d", b.relays)
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	r := &relay{name: name, database: database, topic: name + "-event", slot: name, config: filepath.Join(b.dir, name+".yaml"), admin: admin}
	if err := b.createTopic(ctx, r.topic); err != nil {
		return nil, err
	}
	if err := os.WriteFile(r.config, []byte(b.configOf(r)), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	output, err := exec.CommandContext(ctx, b.binary, "init", "--apply", "--with-table", "--config", r.config).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("cdc-relay init: %w\n%s", err, output)
	}
	return r, nil
}

func (b *bed) configOf(r *relay) string {
	return fmt.Sprintf(`relay: %s
postgres: {dsn: %q, slot: %s, publication: %s, table: public.outbox}
kafka: {brokers: [%s], replication: 1}
routing: {topic: %s, allowed_topics: [%s]}
admin: {listen: %s}
log: {level: warn, format: text}
`, r.name, b.postgres.DSN(r.database, "postgres"), r.slot, publication, strings.Join(b.kafka.Brokers(), ", "), r.topic, r.topic, r.admin)
}

// publication is shared by the relays of one database.
const publication = "bench_outbox"

func (b *bed) createTopic(ctx context.Context, topic string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// freeAddr returns an address that nobody listens on now.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
