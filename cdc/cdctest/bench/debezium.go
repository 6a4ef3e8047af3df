package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// patience is how long a server may show no sign of life.
const patience = 3 * time.Minute

// tuning is one configuration of Debezium.
type tuning struct {
	name   string
	worker cdctest.ConnectConfig
	config map[string]string // of the connector
}

// tunings are Debezium as it comes, and as one who reads its manual for
// throughput and latency sets it.
func tunings() []tuning {
	return []tuning{
		{name: "Debezium, default"},
		{
			name:   "Debezium, tuned",
			worker: cdctest.ConnectConfig{JavaOptions: []string{"-Xms2G", "-Xmx4G"}},
			config: map[string]string{
				"poll.interval.ms":                                        "10",
				"max.batch.size":                                          "20480",
				"max.queue.size":                                          "81920",
				"producer.override.linger.ms":                             "5",
				"producer.override.batch.size":                            "262144",
				"producer.override.buffer.memory":                         "67108864",
				"producer.override.enable.idempotence":                    "true",
				"producer.override.max.in.flight.requests.per.connection": "5",
			},
		},
	}
}

// startDebezium starts a worker per tuning and warms each up, one after the
// other. The workers stay for all measurements: their Java machines are warm.
func (b *bed) startDebezium(ctx context.Context, warmUp time.Duration) (readers []reader, err error) {
	for _, t := range tunings() {
		cfg := t.worker
		cfg.Brokers = b.kafka.Brokers()
		worker, err := cdctest.NewConnectServer(cfg)
		if err != nil {
			return nil, err
		}
		b.workers = append(b.workers, worker)
		if err := worker.Start(ctx); err != nil {
			return nil, err
		}
		r := debeziumReader(t, worker)
		if err := b.warmUp(ctx, r, warmUp); err != nil {
			return nil, fmt.Errorf("warm up %s: %w", t.name, err)
		}
		readers = append(readers, r)
	}
	return readers, nil
}

// warmUp lets a reader follow writers at full speed.
func (b *bed) warmUp(ctx context.Context, r reader, d time.Duration) error {
	if d == 0 {
		return nil
	}
	database, err := b.newDatabase(ctx)
	if err != nil {
		return err
	}
	s, err := r.seat(ctx, b, database)
	if err != nil {
		return err
	}
	running, err := s.start(ctx)
	if err != nil {
		return err
	}
	rows := 0
	for end := time.Now().Add(d); err == nil && time.Now().Before(end); {
		const some = 2000
		_, err = b.fill(ctx, database, oneRowTransactions, some, 1, payloadBytes)
		rows += some
	}
	if err == nil {
		err = b.awaitRecords(ctx, s.topic, rows, running.failure)
	}
	if err = errors.Join(err, running.stop()); err != nil {
		return fmt.Errorf("%w\n%s", err, r.log())
	}
	if _, err := b.checkRows(ctx, rows, s.topic); err != nil {
		return err
	}
	return b.dropDatabase(ctx, database)
}

func debeziumReader(t tuning, worker *cdctest.ConnectServer) reader {
	return reader{name: t.name, steady: true, log: worker.Log, seat: func(ctx context.Context, b *bed, d database) (*seat, error) {
		b.pipes++
		p := pipe{bed: b, worker: worker, database: d, name: fmt.Sprintf("debezium_%d", b.pipes)}
		p.topic = p.name + "-event"
		p.config = b.connectorConfig(d.name, p.name, p.topic)
		maps.Copy(p.config, t.config)
		if err := errors.Join(b.createTopics(ctx, partitions, p.topic), b.copySlot(ctx, d, p.name)); err != nil {
			return nil, err
		}
		return &seat{slot: p.name, topic: p.topic, idHeader: "id", drain: p.drain, start: p.start}, nil
	}}
}

// connectorConfig is that of a user who has an outbox: the Outbox Event Router
// with all its defaults, but for the topic.
func (b *bed) connectorConfig(database, slot, topic string) map[string]string {
	return map[string]string{
		"connector.class":             "io.debezium.connector.postgresql.PostgresConnector",
		"tasks.max":                   "1",
		"plugin.name":                 "pgoutput",
		"database.hostname":           "127.0.0.1",
		"database.port":               strconv.Itoa(b.postgres.Port()),
		"database.user":               "postgres",
		"database.password":           "any", // every local connection is trusted
		"database.dbname":             database,
		"database.sslmode":            "disable", // as for the relay; its driver would prefer TLS
		"topic.prefix":                slot,
		"slot.name":                   slot,
		"publication.name":            publication,
		"publication.autocreate.mode": "disabled",
		"table.include.list":          "public.outbox",
		"snapshot.mode":               "no_data",
		"tombstones.on.delete":        "false",
		"transforms":                  "outbox",
		"transforms.outbox.type":      "io.debezium.transforms.outbox.EventRouter",
		"transforms.outbox.route.topic.replacement": topic,
	}
}

// pipe is a connector with its slot and topic.
type pipe struct {
	bed      *bed
	worker   *cdctest.ConnectServer
	database database
	name     string // of connector and slot
	topic    string
	config   map[string]string
}

// start returns when the connector reads its slot.
func (p pipe) start(ctx context.Context) (running, error) {
	if err := p.worker.CreateConnector(ctx, p.name, p.config); err != nil {
		return running{}, err
	}
	stop := func() error { return p.worker.DeleteConnector(context.WithoutCancel(ctx), p.name) }
	failure := func() error { return p.worker.Failure(ctx, p.name) }
	if err := p.awaitActive(ctx); err != nil {
		return running{}, errors.Join(err, stop())
	}
	return running{pid: p.worker.PID(), stop: stop, failure: failure}, nil
}

// awaitActive waits until the slot is in use.
func (p pipe) awaitActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := p.bed.connect(ctx, p.database.name)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		var active bool
		err := conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", pgx.QueryExecModeExec, p.name).Scan(&active)
		if err != nil {
			return fmt.Errorf("look at the slot of %s: %w\n%s", p.name, err, p.worker.Log())
		}
		if active {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not read its slot: %w\n%s", p.name, errors.Join(ctx.Err(), p.worker.Failure(context.WithoutCancel(ctx), p.name)), p.worker.Log())
		}
	}
}

// drain measures from the moment at which the slot is in use until the last
// record is in Kafka: that the Java machine runs and the connector is set up is
// not part of the time.
func (p pipe) drain(ctx context.Context, backlog backlog) (result drain, err error) {
	pid := p.worker.PID()
	// Forget the peak of former measurements. (proc_pid_clear_refs(5))
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // where this is refused the peak is that of its life
	running, err := p.start(ctx)
	if err != nil {
		return result, err
	}
	watch := startWatch()
	before, _ := processCPU(pid)
	walsender := p.bed.watchWalsender(ctx, p.database.name, p.name)
	err = p.bed.awaitRecords(ctx, p.topic, backlog.rows, running.failure)
	after, _ := processCPU(pid)
	result = watch.stop(backlog, after-before, walsender.cpu())
	walsender.stop()
	if err = errors.Join(err, running.stop()); err != nil {
		return result, fmt.Errorf("%w\n%s", err, p.worker.Log())
	}
	rss, _ := processPeakRSS(pid)
	result.PeakRSSMiB = float64(rss) / (1 << 20)
	size, err := p.bed.checkRows(ctx, backlog.rows, p.topic)
	result.BytesPerRow = float64(size) / float64(backlog.rows)
	return result, err
}

// awaitRecords waits until a topic that is written without transactions has as
// many records. failure is asked now and then.
func (b *bed) awaitRecords(ctx context.Context, topic string, rows int, failure func() error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	lookAt := time.Now()
	for last, progressAt := int64(-1), time.Now(); ; {
		offsets, err := admin.ListEndOffsets(ctx, topic)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return fmt.Errorf("list the end offsets of %s: %w", topic, err)
		}
		records := int64(0)
		offsets.Each(func(o kadm.ListedOffset) { records += o.Offset })
		if records >= int64(rows) {
			return nil
		}
		now := time.Now()
		if records != last {
			last, progressAt = records, now
		}
		if now.Sub(progressAt) > patience {
			return fmt.Errorf("%d of %d rows are in Kafka, and no more come", records, rows)
		}
		if now.After(lookAt) {
			if err := failure(); err != nil {
				return err
			}
			lookAt = now.Add(5 * time.Second)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
