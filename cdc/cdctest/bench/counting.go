package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// countingReader is the relay without what Kafka costs: everything up to the
// publisher, in this process.
func countingReader(v variant) reader {
	return reader{name: v.name, seat: func(ctx context.Context, b *bed, d database) (*seat, error) {
		r, err := b.newRelay(ctx, d, v)
		if err != nil {
			return nil, err
		}
		return &seat{slot: r.slot, drain: func(ctx context.Context, backlog backlog) (drain, error) {
			return b.countBacklog(ctx, r, backlog)
		}}, nil
	}}
}

// countingSink opens publishers that take every batch and do nothing with it.
type countingSink struct {
	cdc.Sink
	rows *atomic.Int64
}

func (s countingSink) Open(ctx context.Context) (cdc.Publisher, cdc.KafkaFacts, error) {
	publisher, facts, err := s.Sink.Open(ctx)
	if err != nil {
		return nil, facts, err
	}
	return countingPublisher{publisher, s.rows}, facts, nil
}

type countingPublisher struct {
	cdc.Publisher
	rows *atomic.Int64
}

func (p countingPublisher) Publish(_ context.Context, batch *cdc.Batch) error {
	p.rows.Add(int64(len(batch.Records)))
	return nil
}

// countBacklog runs the relay in this process until it has handed over
// everything that is committed.
func (b *bed) countBacklog(ctx context.Context, r *relay, backlog backlog) (drain, error) {
	router, err := routing.New(routing.Config{
		Source: r.name, Topic: r.name + "-{aggregatetype}", AllowedTopics: []string{r.name + "-*"},
	})
	if err != nil {
		return drain{}, err
	}
	source, err := postgres.New(postgres.Config{
		DSN:  func() (string, error) { return b.dsn(r.database.name, r.variant.way), nil },
		Slot: r.slot, Publication: publication, Table: "public.outbox", RequiredColumns: router.RequiredColumns(),
	})
	if err != nil {
		return drain{}, err
	}
	defer source.Close()
	mode := cdc.Mode(r.variant.delivery)
	ids := cdc.TransactionalIDs{Prefix: "cdc-relay." + r.name, Ring: 2}
	sink, err := kafka.New(kafka.Config{
		Brokers: b.kafka.Brokers(), Relay: r.name, TransactionalIDPrefix: ids.Prefix, TransactionRing: ids.Ring,
		PositionTopic: "cdc-relay.position." + r.name, Mode: mode,
	})
	if err != nil {
		return drain{}, err
	}
	var rows atomic.Int64
	runner, err := cdc.New(cdc.Config{
		Source: source, Sink: countingSink{sink, &rows}, Router: router, Once: true, Mode: mode,
		Identity: cdc.Identity{Slot: r.slot, TransactionalIDs: ids},
	})
	if err != nil {
		return drain{}, err
	}
	watch, cpuBefore := startWatch(), ownCPU()
	walsender := b.watchWalsender(ctx, r.database.name, r.slot)
	defer walsender.stop()
	if err := runner.Run(ctx); err != nil {
		return drain{}, err
	}
	result := watch.stop(backlog, ownCPU()-cpuBefore, walsender.cpu())
	if rows.Load() != int64(backlog.rows) {
		return drain{}, fmt.Errorf("%d rows came, want %d", rows.Load(), backlog.rows)
	}
	return result, nil
}
