package kafka

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func openBackfill(t testing.TB, s *Sink) *Backfiller {
	t.Helper()
	b, err := s.OpenBackfill(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// The newest backfill is the only one, and none is in the relay's way.
func TestBackfillFencesTheOneBefore(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	s := ready(t, cfg)
	topic := newTopic(t, cfg.Brokers, 3, nil)
	relay, _ := open(t, s)
	record := func(value string) []cdc.Record {
		return []cdc.Record{{Topic: topic, Key: []byte("key"), Placement: []byte("key"), Value: []byte(value), Headers: []cdc.Header{{Key: "h", Value: []byte("v")}}}}
	}
	first := openBackfill(t, s)
	if err := first.Publish(testContext(t), record("first")); err != nil {
		t.Fatal(err)
	}
	second := openBackfill(t, s)
	if err := first.Publish(testContext(t), record("of a fenced one")); err == nil {
		t.Error("a fenced backfill published")
	}
	if err := second.Publish(testContext(t), record("second")); err != nil {
		t.Fatal(err)
	}
	publish(t, relay, batch(1, topic, "of the relay"))
	got := map[string]int32{}
	for _, r := range visible(t, cfg.Brokers, string(topic)) {
		got[string(r.Value)] = r.Partition
		if string(r.Value) != "of the relay" && (len(r.Headers) != 1 || time.Since(r.Timestamp) > time.Minute) {
			t.Errorf("record %s has headers %v and timestamp %s", r.Value, r.Headers, r.Timestamp)
		}
	}
	want := cdc.PartitionFor([]byte("key"), 3)
	if len(got) != 3 || got["first"] != want || got["second"] != want {
		t.Errorf("visible are %v, want first and second in partition %d", got, want)
	}
}

func TestBackfillNeedsTheTopic(t *testing.T) {
	s := ready(t, testConfig(anyBrokers(t)))
	if err := openBackfill(t, s).Publish(testContext(t), []cdc.Record{{Topic: "no-such-topic"}}); err == nil {
		t.Error("a record was published to a topic that does not exist")
	}
}
