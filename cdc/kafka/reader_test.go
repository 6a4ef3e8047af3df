package kafka

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

func readAll(t testing.TB, s *Sink, since time.Time, topics ...cdc.Topic) (values []string, extents []audit.Extent) {
	t.Helper()
	extents, err := NewReader(s).Read(testContext(t), topics, since, func(r *audit.Record) error {
		values = append(values, string(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values, extents
}

// What was committed is read, and the read ends, whatever lies at the end: a
// marker, aborted records, a record of somebody without transactions.
func TestReaderReadsCommittedRecordsToTheEnd(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	s := ready(t, cfg)
	topic, other := newTopic(t, cfg.Brokers, 1, nil), newTopic(t, cfg.Brokers, 2, nil)
	if values, extents := readAll(t, s, time.Time{}, topic, other); len(values) != 0 || len(extents) != 3 {
		t.Errorf("of empty topics: %v, %v", values, extents)
	}
	p, _ := open(t, s)
	publish(t, p, batch(1, topic, "a", "b"))
	if values, _ := readAll(t, s, time.Time{}, topic, other); !slices.Equal(values, []string{"a", "b"}) {
		t.Errorf("behind a commit marker: %v", values)
	}
	half(t, p, p.ring[0], batch(2, topic, "aborted"))
	p.Close()
	p, _ = open(t, s) // aborts it
	if values, _ := readAll(t, s, time.Time{}, topic, other); !slices.Equal(values, []string{"a", "b"}) {
		t.Errorf("behind an abort marker: %v", values)
	}
	plain := plainClient(t, cfg.Brokers)
	if err := plain.ProduceSync(testContext(t), &kgo.Record{Topic: string(topic), Value: []byte("plain")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	publish(t, p, batch(3, other, "c"))
	values, extents := readAll(t, s, time.Time{}, topic, other)
	slices.Sort(values)
	if !slices.Equal(values, []string{"a", "b", "c", "plain"}) {
		t.Errorf("got %v", values)
	}
	for _, extent := range extents {
		if extent.Start != 0 || !extent.TruncatedBefore.IsZero() {
			t.Errorf("extent %+v of a topic that nothing was removed from", extent)
		}
	}
}

func TestReaderBeginsAtATime(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	s := ready(t, cfg)
	topic := newTopic(t, cfg.Brokers, 1, nil)
	now := time.Now().Truncate(time.Millisecond)
	cl := plainClient(t, cfg.Brokers)
	for i, value := range []string{"old", "new", "late copy of old", "newest"} {
		at := []time.Duration{-3 * time.Hour, -time.Hour, -3 * time.Hour, 0}[i]
		if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: string(topic), Value: []byte(value), Timestamp: now.Add(at)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if values, _ := readAll(t, s, now.Add(-2*time.Hour), topic); !slices.Equal(values, []string{"new", "late copy of old", "newest"}) {
		t.Errorf("since two hours: %v", values)
	}
	if values, _ := readAll(t, s, now.Add(time.Hour), topic); len(values) != 0 {
		t.Errorf("since the future: %v", values)
	}
	// Retention removes the first two.
	if _, err := kadm.NewClient(cl).DeleteRecords(testContext(t), kadm.Offsets{string(topic): {0: {Topic: string(topic), At: 2}}}); err != nil {
		t.Fatal(err)
	}
	values, extents := readAll(t, s, time.Time{}, topic)
	if !slices.Equal(values, []string{"late copy of old", "newest"}) || !extents[0].TruncatedBefore.Equal(now.Add(-3*time.Hour)) {
		t.Errorf("after retention: %v, %+v", values, extents)
	}
}

func TestReaderRefusesCompactedTopics(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	topic := newTopic(t, cfg.Brokers, 1, map[string]string{"cleanup.policy": "compact"})
	_, err := NewReader(ready(t, cfg)).Read(testContext(t), []cdc.Topic{topic}, time.Time{}, func(*audit.Record) error { return nil })
	if problem, ok := errors.AsType[*cdc.Problem](err); !ok || problem.What != "topic "+string(topic)+" is compacted" {
		t.Errorf("got %v", err)
	}
}

func TestReaderKnowsPinnedPartitions(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	s := ready(t, cfg)
	pinned, grown, none := newTopic(t, cfg.Brokers, 2, nil), newTopic(t, cfg.Brokers, 4, nil), cdc.Topic("no-such-topic")
	p, _ := open(t, s)
	b := batch(1, pinned, "a")
	b.Pins = []cdc.TopicPin{{Topic: pinned, Partitions: 1}}
	publish(t, p, b)
	settle(t, s)
	r := NewReader(s)
	for topic, want := range map[cdc.Topic]int32{pinned: 1, grown: 4, none: 0} {
		if n, err := r.Partitions(testContext(t), topic); err != nil || n != want {
			t.Errorf("%s has %d partitions, want %d; %v", topic, n, want, err)
		}
	}
}

func TestReaderHandsOnTheCallersError(t *testing.T) {
	cfg := testConfig(anyBrokers(t))
	s := ready(t, cfg)
	topic := newTopic(t, cfg.Brokers, 1, nil)
	p, _ := open(t, s)
	publish(t, p, batch(1, topic, "a", "b"))
	stop := errors.New("enough")
	if _, err := NewReader(s).Read(testContext(t), []cdc.Topic{topic}, time.Time{}, func(*audit.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
