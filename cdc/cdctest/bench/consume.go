package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is a read_committed consumer of one topic.
func (b *bed) consumer(topic string) (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(b.kafka.Brokers()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500*time.Millisecond),
	)
}

// checkRows counts what a read_committed consumer sees: a fast relay that
// forgets rows is no fast relay. Then the topic is deleted.
func (b *bed) checkRows(ctx context.Context, topic string, rows int) error {
	client, err := b.consumer(topic)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for seen := 0; seen < rows; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("%d of %d rows are in topic %s: %w", seen, rows, topic, err)
		}
		seen += fetches.NumRecords()
	}
	_, err = kadm.NewClient(client).DeleteTopic(ctx, topic)
	return err
}
