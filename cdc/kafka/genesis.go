package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// EnsurePositionTopic creates the position topic if it is missing, and checks
// it if it is not. Only init and its like call it: a relay that made its own
// position topic could not tell a lost one from a new one.
func (s *Sink) EnsurePositionTopic(ctx context.Context) (created bool, err error) {
	err = s.withClient(ctx, func(cl *kgo.Client) error {
		topic := cdc.Topic(s.cfg.PositionTopic)
		state, err := s.lookUp(ctx, cl, topic)
		if err != nil {
			return err
		}
		if !state.exists {
			if state, created, err = s.createAndLookUp(ctx, cl, topic, 1, s.positionConfigs()); err != nil {
				return err
			}
		}
		return s.checkPositionTopic(state)
	})
	return created, err
}

// positionConfigs are the settings of a new position topic.
func (s *Sink) positionConfigs() map[string]*string {
	configs := map[string]*string{
		"cleanup.policy": kadm.StringPtr("compact"),
		// The active segment is never compacted: small ones keep the topic small.
		"segment.bytes": kadm.StringPtr("16777216"),
	}
	if s.cfg.Replication >= 3 {
		configs["min.insync.replicas"] = kadm.StringPtr("2")
		configs["unclean.leader.election.enable"] = kadm.StringPtr("false")
	}
	return configs
}

// EnsureTopic creates a topic with the configured partitions and replication if
// it is missing, whether or not the relay itself may.
func (s *Sink) EnsureTopic(ctx context.Context, topic cdc.Topic) (created bool, err error) {
	if why := invalidTopicName(topic); why != "" {
		return false, fmt.Errorf("topic name %q %s", topic, why)
	}
	err = s.withClient(ctx, func(cl *kgo.Client) error {
		state, err := s.lookUp(ctx, cl, topic)
		if err != nil || state.exists {
			return err
		}
		_, created, err = s.createAndLookUp(ctx, cl, topic, s.cfg.Partitions, nil)
		return err
	})
	return created, err
}

// Commit fences the relay's ids, as Open does, and commits one transaction that
// holds nothing but the record (and the pins, unchanged). It is how init writes
// genesis and how other commands write what they decided. A relay that runs is
// fenced by it.
func (s *Sink) Commit(ctx context.Context, record *cdc.PositionRecord) error {
	p, _, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Publish(ctx, &cdc.Batch{Position: record})
}
