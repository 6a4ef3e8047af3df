package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// idempotentPublisher implements cdc.Publisher in mode at-least-once: no
// transaction, no position record, nobody fenced.
//
// Invariant: of each partition, a row is sent only after every row before it
// is in the log or was acknowledged to the slot. A late request of an earlier
// life, or of a replica that lost the slot unnoticed, therefore repeats rows
// and never brings a row before its predecessor for the first time.
type idempotentPublisher struct {
	*publisher // topics, limits and the clients to be closed; its ring is empty
	producer   *kgo.Client
}

var _ cdc.Publisher = (*idempotentPublisher)(nil)

// openAtLeastOnce is Open in mode at-least-once. On an error nothing is left open.
func (s *Sink) openAtLeastOnce(ctx context.Context) (cdc.Publisher, cdc.KafkaFacts, error) {
	s.connects.reset()
	p, err := s.newIdempotentPublisher()
	if err != nil {
		return nil, cdc.KafkaFacts{}, err
	}
	stop := onEnd(ctx, p.Close)
	facts, err := s.begin(ctx, p)
	stop()
	if err != nil {
		p.Close()
		return nil, cdc.KafkaFacts{}, err
	}
	return p, facts, nil
}

func (s *Sink) newIdempotentPublisher() (*idempotentPublisher, error) {
	bare, err := s.newBarePublisher()
	if err != nil {
		return nil, err
	}
	p := &idempotentPublisher{publisher: bare}
	// Where the broker has lost what it knew of the producer, franz-go would go on
	// with a new one and send what may be there: that is for a new life to do.
	p.producer, err = s.newClient(append(s.producing(p.batchBytes), kgo.StopProducerOnDataLossDetected())...)
	if err != nil {
		p.Close()
		return nil, err
	}
	p.adopt(p.producer)
	return p, nil
}

// begin makes sure that no relay in mode exactly-once goes on from the position
// topic, if there is one, and learns what stands there.
func (s *Sink) begin(ctx context.Context, p *idempotentPublisher) (cdc.KafkaFacts, error) {
	facts, decided, err := s.lookBack(ctx, p.publisher)
	if err != nil {
		return facts, err
	}
	if !decided || s.needsMark(facts.Record) {
		if facts.Record, facts.Pins, err = s.markAtLeastOnce(ctx); err != nil {
			return facts, err
		}
	}
	if facts.Topics, err = s.pinnedTopics(ctx, p.publisher, facts.Pins); err != nil {
		return facts, err
	}
	s.log.Info("kafka producer is idempotent and nobody is fenced", "mode", string(cdc.AtLeastOnce), "cluster_id", facts.ClusterID)
	return facts, nil
}

// needsMark says whether somebody may still go on from the record in mode
// exactly-once, or with other transactional ids.
func (s *Sink) needsMark(record *cdc.PositionRecord) bool {
	return record != nil && (record.Mode != cdc.AtLeastOnce || record.TransactionalIDs != s.cfg.transactionalIDs())
}

// lookBack reads the newest record and pins without fencing. That is final where
// all is decided and the record says at-least-once: who wrote it had fenced all
// others before.
func (s *Sink) lookBack(ctx context.Context, p *publisher) (facts cdc.KafkaFacts, decided bool, err error) {
	cluster, topics, err := describeTopics(ctx, p.admin, s.cfg.PositionTopic)
	if err != nil {
		return facts, false, s.explain("look up position topic "+s.cfg.PositionTopic, err)
	}
	facts.ClusterID = cluster
	position := topics[s.cfg.PositionTopic]
	if !position.exists {
		return facts, true, nil
	}
	if err := s.checkPositionTopic(position); err != nil {
		return facts, false, err
	}
	log := s.positionLog(p.admin)
	at, err := log.settledBounds(ctx)
	if err != nil {
		return facts, false, s.explain("read the position", err)
	}
	found, err := log.newest(ctx, at.start, at.stable, true)
	if err != nil {
		return facts, false, s.explain("read the position", err)
	}
	if found.next < at.stable {
		return facts, false, s.incomplete(found.next, at.stable)
	}
	if facts.Record, err = s.decodeRecord(found.record); err != nil {
		return facts, false, err
	}
	facts.Pins, err = s.decodePins(found.pins)
	return facts, at.stable >= at.high, err
}

// markAtLeastOnce fences whoever may still commit and commits the newest record
// again with the mode at-least-once: what it says of rows is history from then
// on. A record that no run in this mode may go on from stays as it is.
func (s *Sink) markAtLeastOnce(ctx context.Context) (*cdc.PositionRecord, []cdc.TopicPin, error) {
	p, facts, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	if !s.needsMark(facts.Record) || facts.Record.State == cdc.RecordResyncing {
		return facts.Record, facts.Pins, nil
	}
	marked := *facts.Record
	marked.State, marked.Mode, marked.At = cdc.RecordRunning, cdc.AtLeastOnce, time.Now().UTC()
	if err := p.Publish(ctx, &cdc.Batch{Position: &marked}); err != nil {
		return nil, nil, fmt.Errorf("write the mode at-least-once into the position topic: %w", err)
	}
	s.log.Warn("delivery is at-least-once from now on: rows that the slot has not seen acknowledged may be published again, and mode exactly-once will refuse to go on",
		"before", string(facts.Record.Mode), "recorded_lsn", facts.Record.RecordedLSN, "position_topic", s.cfg.PositionTopic)
	return &marked, facts.Pins, nil
}

// Publish implements cdc.Publisher. Idle progress, a batch without records, does
// not touch Kafka. After any error all clients are closed.
func (p *idempotentPublisher) Publish(ctx context.Context, batch *cdc.Batch) error {
	if len(batch.Records) == 0 {
		return nil
	}
	stop := onEnd(ctx, p.Close)
	err := p.publish(ctx, batch)
	stop()
	if err != nil {
		return p.fail(ctx, batch, err)
	}
	p.forget()
	return nil
}

func (p *idempotentPublisher) publish(ctx context.Context, batch *cdc.Batch) error {
	if err := p.prepareRecords(ctx, batch); err != nil {
		return err
	}
	cdc.Failpoint("publish.begin")
	if err := produce(ctx, p.producer, "flush", p.records, len(p.records)); err != nil {
		return err
	}
	cdc.Failpoint("publish.flushed")
	return nil
}
