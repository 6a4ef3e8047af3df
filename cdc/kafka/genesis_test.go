package kafka

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestGenesis(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	s := newSink(t, cfg)
	for i, want := range []bool{true, false} {
		if created, err := s.EnsurePositionTopic(testContext(t)); err != nil || created != want {
			t.Fatalf("EnsurePositionTopic, call %d: %t, %v", i+1, created, err)
		}
	}
	topic := cdc.Topic("made-" + cfg.Relay)
	for i, want := range []bool{true, false} {
		if created, err := s.EnsureTopic(testContext(t), topic); err != nil || created != want {
			t.Fatalf("EnsureTopic, call %d: %t, %v", i+1, created, err)
		}
	}
	initialising := position(0)
	initialising.State = cdc.RecordInitialising
	for _, record := range []*cdc.PositionRecord{initialising, position(0x100)} {
		if err := s.Commit(testContext(t), record); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		want := *record
		want.TransactionalIDs = cfg.transactionalIDs()
		want.TransactionalIDs.Ring = 1
		facts, err := s.Advise(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, facts.Record); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	}
	running, _ := open(t, s)
	if err := s.Commit(testContext(t), position(0x200)); err != nil {
		t.Fatal(err)
	}
	if err := running.Publish(testContext(t), batch(0x300, "")); err == nil {
		t.Error("Commit did not fence the relay that ran")
	}
}
