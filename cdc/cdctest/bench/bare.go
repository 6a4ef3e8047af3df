package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const (
	bareName = "Kafka alone"
	// mostBareRate is where one transaction per row begins to be more than a broker
	// can take; the relay puts rows together then.
	mostBareRate = 200
	bareIDHeader = "id"
	bareRing     = 2 // as the relay has
)

// bareLatency is the floor under every exactly-once latency: the same two records
// in the same transaction by the same client, without database and relay, from
// before the transaction begins.
func (b *bed) bareLatency(ctx context.Context, rate int, warmUp, measured time.Duration) (result latency, err error) {
	topic, positions := "bare-"+uuid.NewString(), "bare-position-"+uuid.NewString()
	if err := errors.Join(b.createTopics(ctx, partitions, topic), b.createTopics(ctx, 1, positions)); err != nil {
		return result, err
	}
	var producers [bareRing]*kgo.Client
	for i := range producers {
		producers[i], err = kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...), kgo.TransactionalID(fmt.Sprintf("%s-%d", topic, i)),
			kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			return result, err
		}
		defer producers[i].Close()
	}
	consumer, err := b.consumer(topic)
	if err != nil {
		return result, err
	}
	defer consumer.Close()
	m := newMeter(bareIDHeader, warmUp)
	group, loading := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer m.complete()
		return m.produceBare(loading, producers[:], topic, positions, time.Second/time.Duration(rate), time.Now().Add(warmUp+measured))
	})
	group.Go(func() error {
		consuming, cancel := context.WithTimeout(loading, warmUp+measured+drainTimeout)
		defer cancel()
		return m.consume(consuming, consumer, func() error { return nil })
	})
	if err := group.Wait(); err != nil {
		return result, err
	}
	result = m.result()
	result.Reader, result.Rate, result.Committed = bareName, rate, float64(result.Samples)/m.lasted(measured).Seconds()
	deleted, err := kadm.NewClient(consumer).DeleteTopics(ctx, topic, positions)
	return result, errors.Join(err, deleted.Error())
}

// produceBare commits one record with one of a position per interval.
func (m *meter) produceBare(ctx context.Context, producers []*kgo.Client, topic, positions string, every time.Duration, until time.Time) error {
	payload, ticks := make([]byte, payloadBytes), time.NewTicker(every)
	defer ticks.Stop()
	for i := 0; time.Now().Before(until) || !m.enough(); i++ {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		id, producer := uuid.NewString(), producers[i%len(producers)]
		m.begin(id)
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		err := producer.ProduceSync(ctx,
			&kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: payload, Headers: []kgo.RecordHeader{{Key: bareIDHeader, Value: []byte(id)}}},
			&kgo.Record{Topic: positions, Value: payload},
		).FirstErr()
		if err != nil {
			return err
		}
		if err := producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return err
		}
	}
	return nil
}
