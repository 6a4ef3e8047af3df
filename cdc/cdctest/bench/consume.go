package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is a read_committed consumer of topics.
func (b *bed) consumer(topics ...string) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(b.kafka.Brokers()...), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500*time.Millisecond),
	)
}

// checkRows counts what a read_committed consumer sees: a fast relay that
// forgets rows is no fast relay. Then the topics are deleted. It returns the
// bytes of their logs; 0 where the broker does not tell.
func (b *bed) checkRows(ctx context.Context, rows int, topics ...string) (size int64, err error) {
	client, err := b.consumer(topics...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	counting, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	seen := 0
	for seen < rows {
		fetches := client.PollFetches(counting)
		if err := fetches.Err0(); err != nil {
			return 0, fmt.Errorf("%d of %d rows are in Kafka: %w", seen, rows, err)
		}
		seen += fetches.NumRecords()
	}
	if seen > rows {
		return 0, fmt.Errorf("%d rows are in Kafka, want %d", seen, rows)
	}
	if size, err = logSize(ctx, admin, topics); err != nil {
		return 0, err
	}
	deleted, err := admin.DeleteTopics(ctx, topics...)
	if err == nil {
		err = deleted.Error()
	}
	return size, err
}

// logSize returns the bytes of all partitions.
func logSize(ctx context.Context, admin *kadm.Client, topics []string) (size int64, err error) {
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return 0, fmt.Errorf("list topics: %w", err)
	}
	dirs, err := admin.DescribeAllLogDirs(ctx, details.TopicsSet())
	if err != nil {
		return 0, fmt.Errorf("ask for the sizes of logs: %w", err)
	}
	dirs.Each(func(dir kadm.DescribedLogDir) { size += dir.Size() })
	return size, nil
}
