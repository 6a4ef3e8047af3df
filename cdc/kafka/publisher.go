package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// repeatPinsAfter is the number of transactions after which unchanged pins are
// written again, so that a reader finds them near the end of the position topic
// and need not read a segment of positions to find when they last changed.
const repeatPinsAfter = 500

// publisher implements cdc.Publisher. It belongs to one goroutine; only Close may
// be called from another.
type publisher struct {
	sink  *Sink
	admin *kgo.Client
	ring  []*producer // the configured ids, all fenced
	// usable are the producers whose ids the newest committed record names, or
	// the whole ring once a record that names it was committed. They take turns:
	// invariant: at most one of them has an open transaction.
	usable []*producer
	// former are the fenced ids that some record named and the configuration does
	// not; kept only until a record that names the ring was committed.
	former map[string]*producer

	transactionsV2 bool
	markers        markersTime
	askMarkersAt   time.Time // not before: the coordinator could not tell

	mu      sync.Mutex // guards the fields below, which other goroutines read
	limits  map[cdc.Topic]int32
	clients map[*kgo.Client]bool // to be closed; nil after Close

	pins      []cdc.TopicPin
	sincePins int // transactions since the pins were written; 0: not in this life

	// records and headers are reused by the next batch: after all promises of a
	// transaction were called, the client holds none of them.
	records []kgo.Record
	headers []kgo.RecordHeader
	at      time.Time // of the position that is being published
}

var _ cdc.Publisher = (*publisher)(nil)

// newBarePublisher has no producer yet.
func (s *Sink) newBarePublisher() (*publisher, error) {
	p := &publisher{sink: s, limits: make(map[cdc.Topic]int32), former: make(map[string]*producer), clients: make(map[*kgo.Client]bool)}
	var err error
	if p.admin, err = s.newClient(); err != nil {
		return nil, err
	}
	p.adopt(p.admin)
	return p, nil
}

func (s *Sink) newPublisher() (*publisher, error) {
	p, err := s.newBarePublisher()
	if err != nil {
		return nil, err
	}
	for _, id := range ringIDs(s.cfg.transactionalIDs()) {
		producer, err := s.newProducer(id, p.batchBytes)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.adopt(producer.cl)
		p.ring = append(p.ring, producer)
	}
	p.usable = p.ring
	return p, nil
}

// adopt makes Close close the client; after Close it is closed at once.
func (p *publisher) adopt(cl *kgo.Client) {
	p.mu.Lock()
	open := p.clients != nil
	if open {
		p.clients[cl] = true
	}
	p.mu.Unlock()
	if !open {
		cl.Close()
	}
}

// release closes an adopted client, unless Close does.
func (p *publisher) release(cl *kgo.Client) {
	p.mu.Lock()
	open := p.clients[cl]
	delete(p.clients, cl)
	p.mu.Unlock()
	if open {
		cl.Close()
	}
}

// Close implements cdc.Publisher.
func (p *publisher) Close() {
	p.mu.Lock()
	clients := p.clients
	p.clients = nil
	p.mu.Unlock()
	for cl := range clients {
		cl.Close()
	}
}

// batchBytes bounds the record batches to a topic. franz-go asks once, when it
// first hears of the topic, which is after its facts were noted.
func (p *publisher) batchBytes(topic string) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit, ok := p.limits[cdc.Topic(topic)]; ok {
		return limit
	}
	return defaultMaxMessageBytes
}

func (p *publisher) noteLimit(topic cdc.Topic, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits[topic] = batchLimit(bytes)
}

func (p *publisher) hasLimit(topic cdc.Topic) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.limits[topic]
	return ok
}

// fenceNamed fences the ids that the record names and that are not fenced yet,
// and says whether there were any. It settles which ids may be used first.
func (p *publisher) fenceNamed(ctx context.Context, record *cdc.PositionRecord) (more bool, err error) {
	if record == nil || record.TransactionalIDs.Ring == 0 {
		p.usable = p.ring // nothing to be handed over
		return false, nil
	}
	own := make(map[string]*producer, len(p.ring))
	for _, producer := range p.ring {
		own[producer.id] = producer
	}
	var ownNamed, formerNamed []*producer
	for _, id := range ringIDs(record.TransactionalIDs) {
		if own[id] != nil {
			ownNamed = append(ownNamed, own[id])
			continue
		}
		if p.former[id] == nil {
			if p.former[id], err = p.fenceFormer(ctx, id); err != nil {
				return false, err
			}
			more = true
		}
		formerNamed = append(formerNamed, p.former[id])
	}
	p.usable = ownNamed
	if len(ownNamed) == 0 {
		p.usable = formerNamed[:1]
	}
	return more, nil
}

// fenceFormer makes a client of an id that only the newest record names.
func (p *publisher) fenceFormer(ctx context.Context, id string) (*producer, error) {
	producer, err := p.sink.newProducer(id, p.batchBytes)
	if err != nil {
		return nil, err
	}
	p.adopt(producer.cl)
	if err := producer.fence(ctx); err != nil {
		return nil, p.sink.explain("fence transactional id "+id+" of the newest position record", err)
	}
	p.sink.log.Info("kafka transactional id of the newest position record fenced", "id", id)
	return producer, nil
}

// Topic implements cdc.Publisher.
func (p *publisher) Topic(ctx context.Context, topic cdc.Topic) (cdc.TopicFacts, error) {
	defer onEnd(ctx, p.Close)()
	s := p.sink
	if why := invalidTopicName(topic); why != "" {
		return cdc.TopicFacts{}, cdc.BadRow(fmt.Sprintf("topic name %q %s", topic, why), "correct routing.topic, or the row's column that it uses")
	}
	if string(topic) == s.cfg.PositionTopic {
		return cdc.TopicFacts{}, cdc.BadRow(fmt.Sprintf("topic %s is the relay's position topic", topic), "correct routing.topic, or the row's column that it uses")
	}
	state, err := s.lookUp(ctx, p.admin, topic)
	if err != nil {
		return cdc.TopicFacts{}, err
	}
	if !state.exists {
		if !s.cfg.CreateTopics {
			return cdc.TopicFacts{}, s.missingTopic(topic)
		}
		if state, _, err = s.createAndLookUp(ctx, p.admin, topic, s.cfg.Partitions, nil); err != nil {
			return cdc.TopicFacts{}, err
		}
	}
	if state.configs == nil {
		s.log.Warn("topic configs are not known, Kafka's defaults are assumed", "topic", topic, "cause", state.configsErr)
	}
	p.noteLimit(topic, state.maxMessageBytes())
	return state.facts(topic), nil
}

// Publish implements cdc.Publisher. After any error all clients are closed.
func (p *publisher) Publish(ctx context.Context, batch *cdc.Batch) error {
	began := time.Now()
	// A transaction that the broker has timed out cannot be committed; without
	// this bound, franz-go would retry for ever.
	bounded, cancel := context.WithTimeout(ctx, p.sink.cfg.TransactionTimeout)
	defer cancel()
	stop := onEnd(bounded, p.Close)
	err := p.publish(bounded, batch)
	stop()
	if err == nil {
		p.committed(batch)
		return nil
	}
	err = p.fail(bounded, batch, err)
	if time.Since(began) >= p.sink.cfg.TransactionTimeout && ctx.Err() == nil {
		err = fmt.Errorf("after %s: %w: %w", time.Since(began).Round(time.Millisecond), cdc.ErrTransactionTimeout, err)
	}
	return err
}

// fail explains why a batch was not published, and closes all clients.
func (p *publisher) fail(ctx context.Context, batch *cdc.Batch, err error) error {
	if ended := ctx.Err(); ended != nil && errors.Is(err, kgo.ErrClientClosed) {
		err = fmt.Errorf("%w: %w", ended, err) // the clients were closed because the context ended
	}
	err = p.sink.explain(fmt.Sprintf("publish a batch of %d records", len(batch.Records)), err)
	p.Close() // also drops the client's references to the batch
	// Closing does not wait until the client has let go of the records: whoever
	// publishes again, in vain, must not write over them.
	p.records, p.headers = nil, nil
	return err
}

// publish runs one transaction on the next producer.
func (p *publisher) publish(ctx context.Context, batch *cdc.Batch) error {
	if err := p.prepare(ctx, batch); err != nil {
		return err
	}
	producer := p.rested()
	fresh := p.newTo(producer, batch)
	if err := p.checkPinned(ctx, batch, fresh); err != nil {
		return err
	}
	cdc.Failpoint("publish.begin")
	if err := producer.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction of %s: %w", producer.id, err)
	}
	if err := produce(ctx, producer.cl, "flush transaction of "+producer.id, p.records, len(batch.Records)); err != nil {
		return err
	}
	if err := p.checkPinned(ctx, batch, fresh); err != nil {
		return err
	}
	producer.usedNow(fresh)
	cdc.Failpoint("publish.flushed")
	if err := producer.commit(ctx, p.transactionsV2); err != nil {
		return err
	}
	cdc.Failpoint("publish.ended")
	p.awaitMarkers(ctx, p.rested())
	return nil
}

// rested returns the first producer whose markers are surely written, or else
// the one that rests for the longest. When transactions are far apart one id
// does all the work, and one client holds the buffers.
func (p *publisher) rested() *producer {
	longest := p.usable[0]
	for _, producer := range p.usable {
		if time.Since(producer.endedAt) >= p.sink.markersWritten {
			return producer
		}
		if producer.endedAt.Before(longest.endedAt) {
			longest = producer
		}
	}
	return longest
}

// committed notes what the transaction made true.
func (p *publisher) committed(batch *cdc.Batch) {
	if batch.Pins != nil {
		p.pins = batch.Pins
	}
	p.sincePins++
	if p.sincePins > repeatPinsAfter || batch.Pins != nil {
		p.sincePins = 1
	}
	p.usable = p.ring
	for id, producer := range p.former {
		p.release(producer.cl)
		delete(p.former, id)
	}
	p.forget()
}

// forget drops the references to the batch that was published.
func (p *publisher) forget() {
	clear(p.records)
	clear(p.headers)
}

// prepare fills p.records: the batch in order, the pins, the position last.
func (p *publisher) prepare(ctx context.Context, batch *cdc.Batch) error {
	if batch.Position == nil {
		return errors.New("batch without a position record")
	}
	if err := p.prepareRecords(ctx, batch); err != nil {
		return err
	}
	if batch.Pins != nil || p.sincePins == 0 || p.sincePins >= repeatPinsAfter {
		if err := p.appendPins(batch); err != nil {
			return err
		}
	}
	if err := p.appendCommand(batch.Command); err != nil {
		return err
	}
	position := *batch.Position
	// Only the publisher knows the ids that it uses; the next life fences these.
	position.TransactionalIDs = p.sink.cfg.transactionalIDs()
	value, err := position.Marshal()
	if err != nil {
		return fmt.Errorf("encode position record: %w", err)
	}
	p.appendPosition(p.sink.cfg.Relay, value)
	return nil
}

// prepareRecords fills p.records with the batch in order.
func (p *publisher) prepareRecords(ctx context.Context, batch *cdc.Batch) error {
	p.records, p.headers, p.at = p.records[:0], p.headers[:0], batch.Position.At
	var known cdc.Topic
	for i := range batch.Records {
		record := &batch.Records[i]
		if record.Topic != known {
			if !p.hasLimit(record.Topic) {
				if _, err := p.Topic(ctx, record.Topic); err != nil {
					return err
				}
			}
			known = record.Topic
		}
		var produced kgo.Record
		produced, p.headers = producible(record, p.headers)
		p.records = append(p.records, produced)
	}
	return nil
}

func (p *publisher) appendPins(batch *cdc.Batch) error {
	pins := p.pins
	if batch.Pins != nil {
		pins = batch.Pins
	}
	if pins == nil {
		pins = []cdc.TopicPin{}
	}
	value, err := json.Marshal(pins)
	if err != nil {
		return fmt.Errorf("encode topic pins: %w", err)
	}
	p.appendPosition(pinsKey(p.sink.cfg.Relay), value)
	return nil
}

func (p *publisher) appendPosition(key string, value []byte) {
	p.records = append(p.records, kgo.Record{
		Topic:     p.sink.cfg.PositionTopic,
		Partition: positionPartition,
		Key:       []byte(key),
		Value:     value,
		Timestamp: p.at,
	})
}
