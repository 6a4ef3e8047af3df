package kafka

import (
	"context"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Refuses says why the topic of an event's record would refuse it, as a *cdc.Problem with
// reason bad-row; nil where it would not. Any other error is of the looking.
func (b *Backfiller) Refuses(ctx context.Context, id string, record cdc.Record) error {
	if why := invalidTopicName(record.Topic); why != "" {
		return cdc.BadRow("topic name "+string(record.Topic)+" "+why, "correct routing.topic, or the row's column that it uses")
	}
	state, err := b.sink.lookUp(ctx, b.producer.cl, record.Topic)
	if err != nil {
		return err
	}
	if !state.exists {
		return b.sink.missingTopic(record.Topic)
	}
	if problem := cdc.CheckRecord(&cdc.Row{EventID: []byte(id)}, record, state.facts(record.Topic)); problem != nil {
		return problem
	}
	return nil
}
