package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// retryInterval paces everything that waits for a server to come back.
const retryInterval = 100 * time.Millisecond

// observer reads the topic read_committed, from its beginning, and tells what it
// sees, for the page; nothing is judged by it.
type observer struct {
	client *kgo.Client // only run polls it
	watch  *watch      // is told of every record
}

// seenRecord says which event a record is of and where it is.
type seenRecord struct {
	partition int32
	offset    int64
	eventID   string
}

func newObserver(brokers []string, w *watch) (*observer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(event.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RetryBackoffFn(func(int) time.Duration { return retryInterval }),
		kgo.MetadataMinAge(retryInterval),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	return &observer{client: client, watch: w}, nil
}

// run reads until ctx ends. An unreachable broker is waited for.
func (o *observer) run(ctx context.Context) error {
	defer o.client.Close()
	for ctx.Err() == nil {
		o.client.PollFetches(ctx).EachRecord(o.take)
	}
	return nil
}

// recordValue is the part of the value that is shown.
type recordValue struct {
	PaymentID     string       `json:"payment_id"`
	ReservationID string       `json:"reservation_id"`
	Status        event.Status `json:"status"`
	Amount        event.Amount `json:"amount"`
	FailureCode   string       `json:"failure_code"`
}

func (o *observer) take(r *kgo.Record) {
	var value recordValue
	_ = json.Unmarshal(r.Value, &value) // of what is no payment nothing is shown
	record := seenRecord{partition: r.Partition, offset: r.Offset}
	var position cdc.Position
	for _, header := range r.Headers {
		switch header.Key {
		case "ce_id":
			record.eventID = string(header.Value)
		case "cdc-relay-position":
			position, _ = cdc.ParsePositionHeader(string(header.Value))
		}
	}
	o.watch.delivered(record, position.CommitLSN, value)
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
