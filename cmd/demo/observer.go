package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// retryInterval paces everything that waits for a server to come back.
const retryInterval = 100 * time.Millisecond

// observer reads the topic read_committed, from its beginning, and writes down
// what it sees.
type observer struct {
	client *kgo.Client // only run polls it
	watch  *watch      // is told of every record

	mu   sync.Mutex // guards the fields below
	seen []seenRecord
	next map[int32]int64 // by partition: the offset after the last one read, markers included
}

func newObserver(brokers []string, w *watch) (*observer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(event.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // or the end of a partition could not be known to be read
		kgo.RetryBackoffFn(func(int) time.Duration { return retryInterval }),
		kgo.MetadataMinAge(retryInterval),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	return &observer{client: client, watch: w, next: map[int32]int64{}}, nil
}

// run reads until ctx ends. An unreachable broker is waited for.
func (o *observer) run(ctx context.Context) error {
	defer o.client.Close()
	for ctx.Err() == nil {
		o.client.PollFetches(ctx).EachRecord(o.take)
	}
	return nil
}

// recordValue is the part of the value that is shown or matched.
type recordValue struct {
	PaymentID     string       `json:"payment_id"`
	ReservationID string       `json:"reservation_id"`
	Status        event.Status `json:"status"`
	Amount        event.Amount `json:"amount"`
	FailureCode   string       `json:"failure_code"`
}

func (o *observer) take(r *kgo.Record) {
	o.mu.Lock()
	o.next[r.Partition] = r.Offset + 1
	if r.Attrs.IsControl() {
		o.mu.Unlock()
		return
	}
	var value recordValue
	_ = json.Unmarshal(r.Value, &value) // a value that is no payment is a phantom
	record := seenRecord{partition: r.Partition, offset: r.Offset, key: string(r.Key), paymentID: value.PaymentID}
	var position cdc.Position
	for _, header := range r.Headers {
		switch header.Key {
		case "ce_id":
			record.eventID = string(header.Value)
		case "cdc-relay-position":
			position, _ = cdc.ParsePositionHeader(string(header.Value)) // only shown
		}
	}
	o.seen = append(o.seen, record)
	o.mu.Unlock()
	o.watch.delivered(record, position.CommitLSN, value)
}

// records returns what was seen so far. The slice is not changed later.
func (o *observer) records() []seenRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.seen)
}

// catchUp returns when everything that is in the topic now was read.
func (o *observer) catchUp(ctx context.Context) error {
	admin := kadm.NewClient(o.client)
	for {
		ends, err := admin.ListEndOffsets(ctx, event.Topic)
		if err == nil && ends.Error() == nil && o.reached(ends) {
			return nil
		}
		if !sleep(ctx, retryInterval) {
			return fmt.Errorf("read topic %s to its end: %w", event.Topic, ctx.Err())
		}
	}
}

func (o *observer) reached(ends kadm.ListedOffsets) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	reached := true
	ends.Each(func(end kadm.ListedOffset) { reached = reached && o.next[end.Partition] >= end.Offset })
	return reached
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
