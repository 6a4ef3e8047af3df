package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func atLeastOnce(cfg Config) Config {
	cfg.Mode = cdc.AtLeastOnce
	return cfg
}

// openIdempotent opens a publisher that is closed with the test.
func openIdempotent(t testing.TB, s *Sink) (*idempotentPublisher, cdc.KafkaFacts) {
	t.Helper()
	p, facts, err := s.Open(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p.(*idempotentPublisher), facts
}

// awaitTopic looks the topic up until the broker's metadata has it.
func awaitTopic(t testing.TB, p cdc.Publisher, topic cdc.Topic) {
	t.Helper()
	ctx := testContext(t)
	for {
		_, err := p.Topic(ctx, topic)
		if err == nil {
			return
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatal(err)
		}
	}
}

func TestAtLeastOncePublishesWithoutTransactions(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := atLeastOnce(testConfig(brokers))
	topic := newTopic(t, brokers, 1, nil)
	p, facts := openIdempotent(t, newSink(t, cfg))
	if facts.Record != nil || facts.Pins != nil || facts.ClusterID == "" {
		t.Errorf("facts: %+v", facts)
	}
	awaitTopic(t, p, topic)
	publish(t, p, batch(0x100, topic, "a", "b"))
	publish(t, p, batch(0x200, ""))
	publish(t, p, batch(0x300, topic, "c"))
	records := visible(t, brokers, string(topic))
	if got := values(records); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("visible %v, want a b c", got)
	}
	for i, record := range records {
		if record.Attrs.IsTransactional() || record.ProducerID < 0 || record.ProducerID != records[0].ProducerID {
			t.Errorf("record %d: transactional %t, producer %d, want one idempotent producer", i, record.Attrs.IsTransactional(), record.ProducerID)
		}
	}
	if records[2].Offset != 2 {
		t.Errorf("the third record has offset %d: something else was written between", records[2].Offset)
	}
	topics, err := kadm.NewClient(plainClient(t, brokers)).ListTopics(testContext(t), cfg.PositionTopic)
	if err != nil || topics.Has(cfg.PositionTopic) {
		t.Errorf("a position topic was made: %v, %v", topics, err)
	}
}

func TestAtLeastOnceKeepsIdleProgressFromKafka(t *testing.T) {
	n := &network{}
	cfg := atLeastOnce(testConfig(fake(t).ListenAddrs()))
	cfg.Dial = n.dial
	p, _ := openIdempotent(t, newSink(t, cfg))
	n.disturb(func(int16) fault { return loseRequest })
	publish(t, p, batch(0x100, ""))
}

func TestAtLeastOnceLostAnswers(t *testing.T) {
	setUp := func(t *testing.T) (*network, []string, cdc.Topic, *idempotentPublisher) {
		n, brokers := &network{}, fake(t).ListenAddrs()
		cfg := atLeastOnce(testConfig(brokers))
		cfg.Dial = n.dial
		topic := newTopic(t, brokers, 1, nil)
		p, _ := openIdempotent(t, newSink(t, cfg))
		publish(t, p, batch(0x100, topic, "a"))
		return n, brokers, topic, p
	}
	t.Run("the client asks again and the broker knows the batch", func(t *testing.T) {
		n, brokers, topic, p := setUp(t)
		lost := false
		n.disturb(func(key int16) fault {
			if key != int16(kmsg.Produce) || lost {
				return pass
			}
			lost = true
			return loseResponse
		})
		publish(t, p, batch(0x200, topic, "b"))
		if got := values(visible(t, brokers, string(topic))); !lost || !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("lost %t, visible %v, want a b", lost, got)
		}
	})
	t.Run("without an answer in time the publisher is of no use any more", func(t *testing.T) {
		n, brokers, topic, p := setUp(t)
		n.disturb(func(key int16) fault {
			if key == int16(kmsg.Produce) {
				return swallow
			}
			return pass
		})
		ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
		defer cancel()
		if err := p.Publish(ctx, batch(0x200, topic, "b")); err == nil {
			t.Fatal("a batch without an answer was published")
		}
		n.disturb(nil)
		if err := p.Publish(testContext(t), batch(0x300, topic, "c")); err == nil {
			t.Error("published after a failure: the rows of the failed batch are passed over")
		}
		if got := values(visible(t, brokers, string(topic))); !slices.Equal(got, []string{"a"}) {
			t.Errorf("visible %v, want a", got)
		}
	})
}

// One failed record of a batch fails the batch, whatever became of the others.
func TestAtLeastOnceNeedsEveryPromise(t *testing.T) {
	brokers := anyBrokers(t)
	small, large := newTopic(t, brokers, 1, map[string]string{"max.message.bytes": "1000"}), newTopic(t, brokers, 1, nil)
	p, _ := openIdempotent(t, newSink(t, atLeastOnce(testConfig(brokers))))
	awaitTopic(t, p, small)
	awaitTopic(t, p, large)
	b := batch(0x100, large, "a")
	b.Records = append(b.Records, cdc.Record{Topic: small, Value: make([]byte, 5000)})
	if err := p.Publish(testContext(t), b); err == nil {
		t.Error("a batch with a refused record was published")
	}
}

func TestAtLeastOnceMarksThePositionTopic(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	topic := newTopic(t, brokers, 1, nil)
	before := ready(t, cfg)
	predecessor, _ := open(t, before)
	b := batch(0x100, topic, "a")
	pinned, err := predecessor.Topic(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	b.Pins = []cdc.TopicPin{pinned.TopicPin}
	publish(t, predecessor, b)
	settle(t, before)

	positions := func() []*kgo.Record {
		var records []*kgo.Record
		for _, record := range visible(t, brokers, cfg.PositionTopic) {
			if string(record.Key) == cfg.Relay {
				records = append(records, record)
			}
		}
		return records
	}
	check := func(facts cdc.KafkaFacts, ids cdc.TransactionalIDs, written int) {
		t.Helper()
		record := facts.Record
		if record == nil || record.Mode != cdc.AtLeastOnce || record.RecordedLSN != 0x100 || record.SystemID != "7301" || len(facts.Pins) != 1 {
			t.Fatalf("facts: record %+v, pins %v", record, facts.Pins)
		}
		records := positions()
		newest, err := cdc.UnmarshalPositionRecord(records[len(records)-1].Value)
		if err != nil || newest.Mode != cdc.AtLeastOnce || newest.TransactionalIDs != ids || len(records) != written {
			t.Errorf("%d records, the newest %+v, %v; want %d", len(records), newest, err, written)
		}
	}
	p, facts := openIdempotent(t, newSink(t, atLeastOnce(cfg)))
	check(facts, cfg.withIDs(), 2)
	if err := predecessor.Publish(testContext(t), batch(0x200, topic, "fenced")); err == nil {
		t.Error("a predecessor in mode exactly-once can still commit")
	}
	publish(t, p, batch(0x200, topic, "b"))

	_, facts = openIdempotent(t, newSink(t, atLeastOnce(cfg)))
	check(facts, cfg.withIDs(), 2) // once is enough
	publish(t, p, batch(0x300, topic, "nobody is fenced"))

	renamed := atLeastOnce(cfg)
	renamed.TransactionalIDPrefix += "-new"
	_, facts = openIdempotent(t, newSink(t, renamed))
	check(facts, renamed.withIDs(), 3)

	advised, err := before.Advise(testContext(t))
	if err != nil || advised.Record == nil || advised.Record.Mode != cdc.AtLeastOnce {
		t.Errorf("who looks now sees %+v, %v", advised.Record, err)
	}
	if got := values(visible(t, brokers, string(topic))); !slices.Equal(got, []string{"a", "b", "nobody is fenced"}) {
		t.Errorf("visible %v", got)
	}
}

// A predecessor in mode exactly-once may have produced its first record of all and
// not ended the transaction: nothing is committed yet, and it must not commit later.
func TestAtLeastOnceFencesWhatIsUndecided(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	topic := newTopic(t, brokers, 1, nil)
	n := new(network)
	cfg.Dial = n.dial
	predecessor, _ := open(t, ready(t, cfg))
	arrived := make(chan struct{})
	var once sync.Once
	n.disturb(func(key int16) fault {
		if key == int16(kmsg.EndTxn) {
			once.Do(func() { close(arrived) })
			return swallow
		}
		return pass
	})
	ended := make(chan error, 1)
	go func() { ended <- predecessor.Publish(testContext(t), batch(0x100, topic, "a")) }()
	<-arrived
	later := atLeastOnce(cfg)
	later.Dial = nil
	_, facts := openIdempotent(t, newSink(t, later))
	if facts.Record != nil {
		t.Errorf("record: %+v", facts.Record)
	}
	if hasOpen(t, brokers, cfg.PositionTopic) {
		t.Error("the predecessor can still commit")
	}
	n.disturb(nil)
	predecessor.Close()
	if err := <-ended; err == nil {
		t.Error("the predecessor has published")
	}
	if got := values(visible(t, brokers, string(topic))); len(got) != 0 {
		t.Errorf("visible %v", got)
	}
}

// hasOpen says whether a transaction is open in the topic now.
func hasOpen(t testing.TB, brokers []string, topic string) bool {
	t.Helper()
	admin := kadm.NewClient(plainClient(t, brokers))
	ends, err1 := admin.ListEndOffsets(testContext(t), topic)
	stable, err2 := admin.ListCommittedOffsets(testContext(t), topic)
	if err := errors.Join(firstError(ends, err1), firstError(stable, err2)); err != nil {
		t.Fatal(err)
	}
	return stable[topic][0].Offset < ends[topic][0].Offset
}

func (c Config) withIDs() cdc.TransactionalIDs {
	c = c.withDefaults()
	return c.transactionalIDs()
}

// An unfinished resync must stay one: its record says which rows are missing.
func TestAtLeastOnceLeavesAResyncAlone(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	s := ready(t, cfg)
	p, _ := open(t, s)
	b := batch(0x100, "")
	b.Position.State = cdc.RecordResyncing
	publish(t, p, b)
	settle(t, s)
	_, facts := openIdempotent(t, newSink(t, atLeastOnce(cfg)))
	if facts.Record == nil || facts.Record.Mode != cdc.ExactlyOnce || facts.Record.State != cdc.RecordResyncing {
		t.Errorf("record: %+v", facts.Record)
	}
}

func TestCheckAtLeastOnce(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	levels := func(cfg Config) string {
		text := ""
		for _, f := range newSink(t, cfg).Check(testContext(t), nil) {
			if f.Name == "position topic" || f.Name == "position record" {
				text += fmt.Sprintf("%s %s; ", f.Name, f.Level)
			}
		}
		return text
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"needs no position topic", atLeastOnce(cfg), "position topic ok; position record ok; "},
		{"exactly-once does", cfg, "position topic fail; position record skipped; "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := levels(c.cfg); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
