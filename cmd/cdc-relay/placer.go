package main

import (
	"context"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// placer chooses partitions as the relay does, over the pinned counts, and pins
// topics that are new.
type placer struct {
	publisher cdc.Publisher
	known     map[cdc.Topic]cdc.TopicFacts
	pins      []cdc.TopicPin
	pinsDue   bool // they are not written yet
}

func newPlacer(publisher cdc.Publisher, kafkaFacts cdc.KafkaFacts, pins []cdc.TopicPin) *placer {
	return &placer{publisher: publisher, pins: pins, known: cdc.PinnedTopics(kafkaFacts.Topics, pins)}
}

// place returns the record with its partition, or a *cdc.Problem where its topic
// would refuse it.
func (p *placer) place(ctx context.Context, row *cdc.Row, record cdc.Record) (cdc.Record, error) {
	facts, known := p.known[record.Topic]
	if !known {
		var err error
		if facts, err = p.publisher.Topic(ctx, record.Topic); err != nil {
			return record, err
		}
		p.pin(&facts)
		p.known[record.Topic] = facts
	}
	if problem := cdc.CheckRecord(row, record, facts); problem != nil {
		return record, problem
	}
	record.Partition = cdc.PartitionFor(record.Placement, facts.Partitions)
	return record, nil
}

// pin keeps the pin of a topic that was away, and pins one that is new.
func (p *placer) pin(facts *cdc.TopicFacts) {
	for _, pin := range p.pins {
		if pin.Topic == facts.Topic {
			facts.TopicPin = pin
			return
		}
	}
	p.pins, p.pinsDue = append(p.pins[:len(p.pins):len(p.pins)], facts.TopicPin), true
}

// pinsToWrite are the pins for the next transaction; nil where they are written.
func (p *placer) pinsToWrite() []cdc.TopicPin {
	if !p.pinsDue {
		return nil
	}
	p.pinsDue = false
	return p.pins
}
