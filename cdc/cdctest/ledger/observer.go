package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// positionHeader and idHeader are what a record of format cloudevents carries.
const (
	positionHeader = "cdc-relay-position"
	idHeader       = "ce_id"
)

// ReaderOptions make a client that an Observer can use: read_committed, from
// the beginning, markers included. In mode at-least-once there is no position
// topic: its name is empty then.
func ReaderOptions(topic, positionTopic string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumeTopics(existing(topic, positionTopic)...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		// A reader that waits longer than the relay would hide how soon it is back.
		kgo.RetryBackoffFn(func(int) time.Duration { return retryInterval }),
	}
}

// existing leaves out a position topic without a name.
func existing(topic, positionTopic string) []string {
	if positionTopic == "" {
		return []string{topic}
	}
	return []string{topic, positionTopic}
}

// Observer reads a topic and the position topic while everything happens, and
// writes down what it sees.
type Observer struct {
	client        *kgo.Client // only Run polls it
	topic         string
	positionTopic string

	mu        sync.Mutex // guards the fields below
	seen      []Record
	ids       map[string]int // how often each event was seen
	positions []PositionRecord
	markers   map[producerAt]int         // of the topic
	next      map[string]map[int32]int64 // offset after the last one read
	changed   chan struct{}              // closed and replaced at every change
	err       error
}

// producerAt is one producer in one partition. The marker of a producer ends
// its own transaction and no other: with a ring of transactional ids, records of
// the next one may lie before it.
type producerAt struct {
	partition  int32
	producerID int64
}

// NewObserver returns an observer that has seen nothing. The client must have
// been made with ReaderOptions; it stays the caller's.
func NewObserver(client *kgo.Client, topic, positionTopic string) *Observer {
	return &Observer{
		client: client, topic: topic, positionTopic: positionTopic,
		ids: map[string]int{}, markers: map[producerAt]int{},
		next:    map[string]map[int32]int64{topic: {}, positionTopic: {}},
		changed: make(chan struct{}),
	}
}

// Run reads until ctx ends. An unreachable broker is waited for; a record that
// no relay should write ends it with an error, as it ends every wait.
func (o *Observer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		fetches := o.client.PollFetches(ctx)
		if err := o.take(fetches); err != nil {
			return err
		}
	}
	return nil
}

func (o *Observer) take(fetches kgo.Fetches) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	fetches.EachRecord(func(record *kgo.Record) {
		if o.err == nil {
			o.err = o.takeRecord(record)
		}
	})
	close(o.changed)
	o.changed = make(chan struct{})
	return o.err
}

func (o *Observer) takeRecord(r *kgo.Record) error {
	if expected := o.next[r.Topic][r.Partition]; r.Offset < expected {
		return fmt.Errorf("reader went back to offset %d of %s/%d after reading up to %d", r.Offset, r.Topic, r.Partition, expected)
	}
	o.next[r.Topic][r.Partition] = r.Offset + 1
	switch {
	case r.Attrs.IsControl() && r.Topic == o.topic:
		o.markers[producerAt{r.Partition, r.ProducerID}]++
		return nil
	case r.Attrs.IsControl():
		return nil
	case r.Topic == o.topic:
		record, err := parseRecord(r)
		if err != nil {
			return fmt.Errorf("%s/%d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		record.KafkaTransaction = o.markers[producerAt{r.Partition, r.ProducerID}]
		o.seen = append(o.seen, record)
		o.ids[record.ID]++
		return nil
	default:
		return o.takePosition(r)
	}
}

func (o *Observer) takePosition(r *kgo.Record) error {
	// Pins and finished commands have keys of the form <relay>/...; they are not
	// what is checked here.
	if slices.Contains(r.Key, '/') {
		return nil
	}
	record, err := cdc.UnmarshalPositionRecord(r.Value)
	if err != nil {
		return fmt.Errorf("%s offset %d: %w", r.Topic, r.Offset, err)
	}
	o.positions = append(o.positions, PositionRecord{Offset: r.Offset, PositionRecord: record})
	return nil
}

// digest covers each part with its length, so that no two splits look the same.
func digest(r *kgo.Record) (d Digest) {
	hash := sha256.New()
	part := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		_, _ = hash.Write(size[:]) // a hash never fails
		_, _ = hash.Write(b)
	}
	part(r.Key)
	part(r.Value)
	for _, header := range r.Headers {
		part([]byte(header.Key))
		part(header.Value)
	}
	copy(d[:], hash.Sum(nil))
	return d
}

func parseRecord(r *kgo.Record) (Record, error) {
	record := Record{Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), ProducerID: r.ProducerID, ProducerEpoch: r.ProducerEpoch, Digest: digest(r)}
	for _, header := range r.Headers {
		switch header.Key {
		case idHeader:
			record.ID = string(header.Value)
		case positionHeader:
			position, err := cdc.ParsePositionHeader(string(header.Value))
			if err != nil {
				return record, err
			}
			record.Position = position
		}
	}
	if record.ID == "" {
		return record, fmt.Errorf("no header %s", idHeader)
	}
	var value payload
	if err := json.Unmarshal(r.Value, &value); err != nil {
		return record, fmt.Errorf("event %s: payload: %w", record.ID, err)
	}
	if value.Key != record.Key {
		return record, fmt.Errorf("event %s: record key %q, payload says %q", record.ID, record.Key, value.Key)
	}
	record.Seq, record.Tag = value.Seq, value.Tag
	return record, nil
}

// Seen returns the records so far.
func (o *Observer) Seen() []Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// Positions returns the position records so far.
func (o *Observer) Positions() []PositionRecord {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.positions)
}

// Count returns how many different events were seen.
func (o *Observer) Count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ids)
}

// Saw says whether the event was seen.
func (o *Observer) Saw(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ids[id] > 0
}

// Wait returns once done returns true; done is called at first and after every
// change. It returns an error when ctx ends or the reader stopped.
func (o *Observer) Wait(ctx context.Context, done func() bool) error {
	for {
		o.mu.Lock()
		changed, err := o.changed, o.err
		o.mu.Unlock()
		if err != nil {
			return err
		}
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// CatchUp waits until everything that is in both topics now was read and no
// transaction is open in them.
func (o *Observer) CatchUp(ctx context.Context) error {
	ends, err := decidedEnds(ctx, kadm.NewClient(o.client), existing(o.topic, o.positionTopic)...)
	if err != nil {
		return err
	}
	return o.Wait(ctx, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		reached := true
		ends.Each(func(end kadm.ListedOffset) {
			reached = reached && o.next[end.Topic][end.Partition] >= end.Offset
		})
		return reached
	})
}

// decidedEnds returns the high watermarks once they are the last stable offsets
// too, that is, once no transaction is open.
func decidedEnds(ctx context.Context, admin *kadm.Client, topics ...string) (kadm.ListedOffsets, error) {
	for {
		ends, err := admin.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		var stable kadm.ListedOffsets
		if err == nil {
			stable, err = admin.ListCommittedOffsets(ctx, topics...)
		}
		if err == nil {
			err = stable.Error()
		}
		if err == nil && sameOffsets(ends, stable) {
			return ends, nil
		}
		if !sleep(ctx, retryInterval) {
			if err == nil {
				err = fmt.Errorf("a transaction stays open in %v", topics)
			}
			return nil, err
		}
	}
}

func sameOffsets(a, b kadm.ListedOffsets) bool {
	same := true
	a.Each(func(offset kadm.ListedOffset) {
		other, ok := b.Lookup(offset.Topic, offset.Partition)
		same = same && ok && other.Offset == offset.Offset
	})
	return same
}
