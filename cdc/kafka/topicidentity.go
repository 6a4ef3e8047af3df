package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// newTo are the topics of the batch that the producer has not written to. A client
// learns a topic's id when it first hears of it and writes by that id from then on:
// one that has used a topic which is deleted and made again is refused, but the
// next id of the ring would take the new topic for the old one.
func (p *publisher) newTo(producer *producer, batch *cdc.Batch) (topics []cdc.Topic) {
	var last cdc.Topic
	for i := range batch.Records {
		topic := batch.Records[i].Topic
		if topic != last && !producer.used[topic] && !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
		last = topic
	}
	return topics
}

// checkPinned compares the topics with their pins: before they are written to,
// so that nothing is, and after, because they may be made again in between.
func (p *publisher) checkPinned(ctx context.Context, batch *cdc.Batch, topics []cdc.Topic) error {
	if len(topics) == 0 {
		return nil
	}
	pins := p.pins
	if batch.Pins != nil {
		pins = batch.Pins
	}
	// Asked of a broker: what the client remembers may be of the old topic.
	request := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(string(name))
		request.Topics = append(request.Topics, topic)
	}
	metadata, err := request.RequestWith(ctx, p.admin)
	if err != nil {
		return err
	}
	for _, now := range metadata.Topics {
		if now.ErrorCode != 0 || now.Topic == nil || now.TopicID == ([16]byte{}) {
			continue // producing shows what is wrong with it
		}
		at := slices.IndexFunc(pins, func(pin cdc.TopicPin) bool { return string(pin.Topic) == *now.Topic })
		if at < 0 {
			continue
		}
		facts := cdc.TopicFacts{TopicPin: cdc.TopicPin{Topic: pins[at].Topic, ID: topicID(now.TopicID)}}
		if problem := cdc.CheckPin(pins[at], facts); problem != nil {
			return problem
		}
	}
	return nil
}

// usedNow notes the topics that the producer knows from here on.
func (p *producer) usedNow(topics []cdc.Topic) {
	for _, topic := range topics {
		p.used[topic] = true
	}
}
