package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// backfillSuffix makes the transactional id of backfills, which is none of the
// relay's: a backfill fences another backfill and never the relay.
const backfillSuffix = ".backfill"

// Backfiller publishes records beside the relay, in transactions of its own. At
// most one exists: opening one fences the one before, whose next Publish fails.
// It belongs to one goroutine.
type Backfiller struct {
	sink     *Sink
	reader   *Reader
	producer *producer
	topics   map[cdc.Topic]backfillTopic
}

type backfillTopic struct {
	partitions int32 // pinned
	bytes      int   // max.message.bytes
}

// OpenBackfill fences whatever backfill ran before; nothing of it is undecided
// when it returns. Only after that may anybody look which records are missing.
func (s *Sink) OpenBackfill(ctx context.Context) (*Backfiller, error) {
	s.connects.reset()
	b := &Backfiller{sink: s, reader: NewReader(s), topics: map[cdc.Topic]backfillTopic{}}
	var err error
	if b.producer, err = s.newProducer(s.cfg.TransactionalIDPrefix+backfillSuffix, b.batchBytes); err != nil {
		return nil, err
	}
	stop := onEnd(ctx, b.Close)
	err = b.producer.fence(ctx)
	stop()
	if err != nil {
		b.Close()
		return nil, s.explain("fence transactional id "+b.producer.id, err)
	}
	return b, nil
}

// batchBytes is asked when the client first hears of a topic, which is after
// learn.
func (b *Backfiller) batchBytes(topic string) int32 {
	if known, ok := b.topics[cdc.Topic(topic)]; ok {
		return batchLimit(known.bytes)
	}
	return defaultMaxMessageBytes
}

// learn looks a topic up before its first record.
func (b *Backfiller) learn(ctx context.Context, topic cdc.Topic) (backfillTopic, error) {
	if known, ok := b.topics[topic]; ok {
		return known, nil
	}
	n, err := b.reader.Partitions(ctx, topic)
	if err != nil {
		return backfillTopic{}, err
	}
	if n == 0 {
		return backfillTopic{}, b.sink.missingTopic(topic)
	}
	state, err := b.sink.lookUp(ctx, b.producer.cl, topic)
	if err != nil {
		return backfillTopic{}, err
	}
	known := backfillTopic{partitions: n, bytes: state.maxMessageBytes()}
	b.topics[topic] = known
	return known, nil
}

// Publish commits the records in one transaction, each in the partition where
// the relay would have put it. After an error it is not known what became of
// them, and the Backfiller is of no use but to be closed: fence and look again.
func (b *Backfiller) Publish(ctx context.Context, records []cdc.Record) error {
	out := make([]kgo.Record, len(records))
	for i := range records {
		topic, err := b.learn(ctx, records[i].Topic)
		if err != nil {
			return err
		}
		out[i], _ = producible(&records[i], nil)
		out[i].Partition = cdc.PartitionFor(records[i].Placement, topic.partitions)
		if out[i].Timestamp.IsZero() {
			out[i].Timestamp = time.Now()
		}
	}
	bounded, cancel := context.WithTimeout(ctx, b.sink.cfg.TransactionTimeout)
	defer cancel()
	stop := onEnd(bounded, b.Close)
	err := b.transaction(bounded, out)
	stop()
	return b.sink.explain(fmt.Sprintf("backfill %d records", len(records)), err)
}

func (b *Backfiller) transaction(ctx context.Context, records []kgo.Record) error {
	if err := b.producer.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction of %s: %w", b.producer.id, err)
	}
	if err := produce(ctx, b.producer.cl, "flush transaction of "+b.producer.id, records, len(records)); err != nil {
		return err
	}
	return b.producer.commit(ctx, false) // whatever the cluster is: such a Backfiller is not used again
}

// Close drops the client without waiting for anything in flight.
func (b *Backfiller) Close() { b.producer.cl.Close() }
