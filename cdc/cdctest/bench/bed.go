package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// partitions of every topic.
const partitions = 12

// bed is what measurements are made on.
type bed struct {
	postgres *cdctest.PostgresServer
	kafka    *cdctest.KafkaServer
	workers  []*cdctest.ConnectServer
	dir      string // binary and configurations
	binary   string
	relays   int // how many were made, for their names
	discards int // likewise
	pipes    int // likewise, of Debezium
	newKafka func() (*cdctest.KafkaServer, error)
	link     *link // nil where nothing is measured over it
}

// startBed starts everything that the options need.
func startBed(ctx context.Context, opts options) (*bed, error) {
	b := &bed{newKafka: opts.newKafka}
	if err := b.start(ctx, opts.linked()); err != nil {
		return nil, errors.Join(err, b.remove())
	}
	return b, nil
}

func (b *bed) start(ctx context.Context, linked bool) (err error) {
	if b.dir, err = os.MkdirTemp("", "cdc-relay-bench-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	b.binary = filepath.Join(b.dir, "cdc-relay")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/cdc-relay/cdc-relay/cmd/cdc-relay")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	settings := map[string]string{
		"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "autovacuum": "off", "wal_sender_timeout": "60s",
		"max_replication_slots": "200", "max_wal_senders": "50",
	}
	if linked {
		if b.link, err = newLink(); err != nil {
			return err
		}
		settings["listen_addresses"] = "127.0.0.1," + linkHost
	}
	if b.postgres, err = cdctest.NewPostgresServer(cdctest.PostgresConfig{Settings: settings, TLS: true}); err != nil {
		return err
	}
	if linked {
		if err := b.admitLink(); err != nil {
			return err
		}
	}
	if err := b.postgres.Start(ctx); err != nil {
		return err
	}
	if b.kafka, err = b.newKafka(); err != nil {
		return err
	}
	return b.kafka.Start(ctx)
}

// admitLink lets the server, which does not run yet, take who comes over the link.
func (b *bed) admitLink() error {
	rules, err := os.OpenFile(filepath.Join(b.postgres.DataDir(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open access rules: %w", err)
	}
	_, err = fmt.Fprintf(rules, "host all all %s/32 trust\n", linkPeer)
	return errors.Join(err, rules.Close())
}

func (b *bed) remove() error {
	var errs []error
	if b.link != nil {
		errs = append(errs, b.link.close())
	}
	for _, worker := range b.workers {
		errs = append(errs, worker.Remove())
	}
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
	e := environment{
		CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		PostgresMajor: b.postgres.Major(), Kafka: kafka, Partitions: partitions, PayloadBytes: payloadBytes,
		Rows: opts.rows, Runs: opts.runs,
	}
	if opts.debezium {
		connect, debezium := cdctest.ConnectVersions()
		e.Debezium = "Debezium " + debezium + " in Kafka Connect " + connect + " standalone, over TCP, at least once"
	}
	return e
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
