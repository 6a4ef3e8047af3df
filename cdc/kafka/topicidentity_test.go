package kafka

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// A topic that is made again while the relay runs is not taken for the old one
// by an id of the ring that has not written to it.
func TestRecreatedTopicIsRefusedToEveryID(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	cfg.TransactionRing = 2
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, cfg)
	p, _ := open(t, s)
	first := batch(0x100, topic, "a")
	facts, err := p.Topic(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	first.Pins = []cdc.TopicPin{facts.TopicPin}
	publish(t, p, first)
	admin := kadm.NewClient(plainClient(t, brokers))
	if _, err := admin.DeleteTopic(t.Context(), string(topic)); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	for { // a real cluster refuses the name for a moment
		_, err := admin.CreateTopic(ctx, 1, 1, nil, string(topic))
		if err == nil {
			break
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatal(err)
		}
	}
	for { // its brokers know of none for a moment, or still of the old one
		made, err := p.Topic(ctx, topic)
		if err == nil && made.ID != facts.ID {
			break
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("topic made again: %+v, %v", made, err)
		}
	}
	err = p.checkPinned(testContext(t), first, p.newTo(p.ring[1], first))
	if problem, ok := errors.AsType[*cdc.Problem](err); !ok || problem.Reason != cdc.HaltTopicRecreated {
		t.Errorf("the second id of the ring: %v, want it to find %s", err, cdc.HaltTopicRecreated)
	}
}
