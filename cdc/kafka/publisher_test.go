package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func values(records []*kgo.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, string(r.Value))
	}
	return all
}

func TestPublishWritesBatchAndPosition(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 3, nil)
	s := ready(t, testConfig(brokers))
	p, facts := open(t, s)
	if facts.Record != nil || facts.ClusterID == "" {
		t.Fatalf("facts of an empty position topic: %+v", facts)
	}
	at := time.UnixMilli(1_760_000_000_123)
	b := &cdc.Batch{Position: position(0x100), Records: []cdc.Record{
		{Topic: topic, Partition: 2, Key: []byte("k1"), Value: []byte("v1"), Timestamp: at,
			Headers: []cdc.Header{{Key: "a", Value: []byte("1")}, {Key: "null"}, {Key: "empty", Value: []byte{}}}},
		{Topic: topic, Partition: 2, Value: []byte("v2"), Headers: []cdc.Header{{Key: "b", Value: []byte("2")}}},
		{Topic: topic, Partition: 1, Key: []byte("k3")},
	}}
	before := time.Now().Add(-time.Second)
	publish(t, p, b)

	got := make(map[string]*kgo.Record)
	for _, r := range visible(t, brokers, string(topic)) {
		got[fmt.Sprintf("%d:%s:%s", r.Partition, r.Key, r.Value)] = r
	}
	first, second, third := got["2:k1:v1"], got["2::v2"], got["1:k3:"]
	if len(got) != 3 || first == nil || second == nil || third == nil {
		t.Fatalf("visible: %v", got)
	}
	if !first.Timestamp.Equal(at) || second.Timestamp.Before(before) {
		t.Errorf("timestamps: %s (want %s), %s (want now)", first.Timestamp, at, second.Timestamp)
	}
	if second.Key != nil || third.Value != nil {
		t.Errorf("null key %v, null value %v", second.Key, third.Value)
	}
	want := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "null"}, {Key: "empty", Value: []byte{}}}
	if diff := cmp.Diff(want, first.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if second.Offset < first.Offset {
		t.Errorf("order: %d before %d", second.Offset, first.Offset)
	}
	p.Close()

	_, facts = open(t, s)
	wantRecord := position(0x100)
	wantRecord.TransactionalIDs = s.cfg.transactionalIDs()
	if diff := cmp.Diff(wantRecord, facts.Record); diff != "" {
		t.Errorf("position record (-want +got):\n%s", diff)
	}
	if b.Position.TransactionalIDs != (cdc.TransactionalIDs{}) {
		t.Error("the batch was modified")
	}
}

func TestPublishCommitsNothingAfterOneFailedPromise(t *testing.T) {
	brokers := anyBrokers(t)
	fine, small := newTopic(t, brokers, 1, nil), newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	publish(t, p, batch(0x100, fine, "first"))
	if _, err := p.Topic(testContext(t), small); err != nil {
		t.Fatal(err)
	}
	// The limit falls after it was looked up, so that the broker refuses.
	_, err := kadm.NewClient(plainClient(t, brokers)).AlterTopicConfigs(testContext(t),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("1000")}}, string(small))
	if err != nil {
		t.Fatal(err)
	}
	// A real cluster answers before the topic's logs go by the new limit.
	probes, prober, ctx := 0, plainClient(t, brokers, kgo.ProducerBatchCompression(kgo.NoCompression())), testContext(t)
	for ; err == nil; probes++ {
		err = prober.ProduceSync(ctx, &kgo.Record{Topic: string(small), Value: make([]byte, 2000)}).FirstErr()
	}
	if !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatal(err)
	}
	b := batch(0x200, fine, "a", "b")
	b.Records = append(b.Records, cdc.Record{Topic: small, Value: []byte(strings.Repeat("x", 5000))}, cdc.Record{Topic: fine, Value: []byte("c")})
	err = p.Publish(testContext(t), b)
	problem := cdc.AsProblem(err)
	if err == nil || problem.Why != "MESSAGE_TOO_LARGE" || problem.Treatment != cdc.Retry {
		t.Fatalf("Publish: %v", err)
	}
	_, facts := open(t, s)
	if got := recordedLSN(facts); got != 0x100 {
		t.Errorf("recorded LSN %s, want 0/100", got)
	}
	if got := values(visible(t, brokers, string(fine))); !cmp.Equal(got, []string{"first"}) {
		t.Errorf("visible: %v", got)
	}
	if got := values(visible(t, brokers, string(small))); len(got) != probes-1 { // the last one was refused
		t.Errorf("visible in the small topic, after %d probes: %v", probes, got)
	}
}

func TestOpenFencesTheFormerLife(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))

	t.Run("between transactions", func(t *testing.T) {
		zombie, _ := open(t, s)
		publish(t, zombie, batch(0x100, topic, "a"))
		next, _ := open(t, s)
		if err := zombie.Publish(testContext(t), batch(0x200, topic, "zombie")); err == nil {
			t.Fatal("the zombie committed")
		}
		publish(t, next, batch(0x300, topic, "b"))
		next.Close()
	})
	t.Run("with everything sent but the end", func(t *testing.T) {
		zombie, _ := open(t, s)
		half(t, zombie, zombie.ring[0], batch(0x400, topic, "half"))
		next, facts := open(t, s)
		if got := recordedLSN(facts); got != 0x300 {
			t.Errorf("recorded LSN %s, want 0/300", got)
		}
		if err := zombie.ring[0].commit(testContext(t), zombie.transactionsV2); err == nil {
			t.Fatal("the zombie committed")
		}
		publish(t, next, batch(0x500, topic, "c"))
	})
	if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("visible: %v", got)
	}
}

// half produces a batch on one id and leaves its transaction open.
func half(t testing.TB, p *publisher, id *producer, b *cdc.Batch) {
	t.Helper()
	ctx := testContext(t)
	if err := p.prepare(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := id.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	promises := promises{want: len(p.records)}
	for i := range p.records {
		id.cl.Produce(ctx, &p.records[i], promises.note)
	}
	if err := errors.Join(id.cl.Flush(ctx), promises.err()); err != nil {
		t.Fatal(err)
	}
}

func TestOutcomeOfALostEndIsReadByTheNextLife(t *testing.T) {
	for _, version := range []struct {
		name string
		opts []kfake.Opt
		v2   bool
	}{
		{"transactions v2", nil, true},
		{"transactions v1", []kfake.Opt{kfake.MaxVersions(kversion.V3_6_0())}, false},
	} {
		for _, c := range []struct {
			name    string
			fault   fault
			always  bool
			want    cdc.LSN // read by the next life
			wantErr bool    // under v2
		}{
			{"applied, answer lost once", loseResponse, false, 0x200, false},
			{"never arrived once", loseRequest, false, 0x200, false},
			{"applied, every answer lost", loseResponse, true, 0x200, true},
			{"never arrives", loseRequest, true, 0x100, true},
		} {
			t.Run(version.name+", "+c.name, func(t *testing.T) {
				brokers := fake(t, version.opts...).ListenAddrs()
				topic := newTopic(t, brokers, 1, nil)
				cfg := testConfig(brokers)
				// What comes before EndTxn takes its time on a busy machine. The transaction
				// must not time out then; who loses every EndTxn ends the context instead.
				cfg.TransactionTimeout = time.Minute
				network := new(network)
				cfg.Dial = network.dial
				s := ready(t, cfg)
				p, _ := open(t, s)
				if p.transactionsV2 != version.v2 {
					t.Fatalf("transactions v2: %t", p.transactionsV2)
				}
				publish(t, p, batch(0x100, topic, "a"))
				ctx, cancel := context.WithCancel(testContext(t))
				defer cancel()
				var lost atomic.Int32
				network.disturb(func(key int16) fault {
					if key != int16(kmsg.EndTxn) || lost.Load() > 0 && !c.always {
						return pass
					}
					if lost.Add(1) == 2 {
						cancel() // the client tries again and again
					}
					return c.fault
				})
				err := p.Publish(ctx, batch(0x200, topic, "b"))
				network.disturb(nil)
				if lost.Load() == 0 {
					t.Fatalf("no EndTxn was disturbed: %v", err)
				}
				if wantErr := c.wantErr || !version.v2; (err != nil) != wantErr {
					t.Errorf("Publish: %v, want error: %t", err, wantErr)
				}
				_, facts := open(t, s)
				if got := recordedLSN(facts); got != c.want {
					t.Errorf("recorded LSN %s, want %s", got, c.want)
				}
				want := []string{"a"}
				if c.want == 0x200 {
					want = append(want, "b")
				}
				if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, want) {
					t.Errorf("visible: %v, want %v", got, want)
				}
			})
		}
	}
}

func TestPublishEndsInTime(t *testing.T) {
	// Without the ends that are tested here, the client would try for 20 s and longer.
	const inTime = 15 * time.Second
	setup := func(t *testing.T, timeout time.Duration, key kmsg.Key) (*Sink, *publisher, cdc.Topic, []string) {
		brokers := anyBrokers(t)
		topic := newTopic(t, brokers, 1, nil)
		cfg := testConfig(brokers)
		network := new(network)
		cfg.Dial = network.dial
		s := ready(t, cfg)
		p, _ := open(t, s)
		publish(t, p, batch(0x100, topic, "a"))
		p.sink.cfg.TransactionTimeout = timeout // not before: the first transaction takes its time on a busy machine
		network.disturb(func(k int16) fault {
			if k == int16(key) {
				return swallow
			}
			return pass
		})
		t.Cleanup(func() { network.disturb(nil) })
		cfg.Dial = nil
		return newSink(t, cfg), p, topic, brokers
	}
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn} {
		t.Run("when its context ends during "+key.Name(), func(t *testing.T) {
			s, p, topic, brokers := setup(t, time.Minute, key)
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := p.Publish(ctx, batch(0x200, topic, "b"))
			if took := time.Since(began); took > inTime {
				t.Errorf("took %s", took)
			}
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cdc.ErrTransactionTimeout) {
				t.Errorf("Publish: %v", err)
			}
			_, facts := open(t, s)
			if got := recordedLSN(facts); got != 0x100 {
				t.Errorf("recorded LSN %s, want 0/100", got)
			}
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, []string{"a"}) {
				t.Errorf("visible: %v", got)
			}
		})
		t.Run("when the transaction times out during "+key.Name(), func(t *testing.T) {
			s, p, topic, _ := setup(t, time.Second, key)
			began := time.Now()
			err := p.Publish(testContext(t), batch(0x200, topic, "b"))
			if took := time.Since(began); took > inTime {
				t.Errorf("took %s", took)
			}
			if !errors.Is(err, cdc.ErrTransactionTimeout) {
				t.Errorf("Publish: %v", err)
			}
			_, facts := open(t, s)
			if got := recordedLSN(facts); got != 0x100 {
				t.Errorf("recorded LSN %s, want 0/100", got)
			}
		})
	}
}

func TestRingTakesTurns(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 1, nil)
	cfg := testConfig(brokers)
	cfg.TransactionRing = 3
	s := ready(t, cfg)
	s.markersWritten = time.Hour // however slow the machine is, no id has rested
	p, _ := open(t, s)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprint(i))
		publish(t, p, batch(cdc.LSN(0x100+i), topic, want[i]))
	}
	records := visible(t, brokers, string(topic))
	if got := values(records); !cmp.Equal(got, want) {
		t.Errorf("visible: %v", got)
	}
	ids := make(map[int64]bool)
	for _, r := range records {
		ids[r.ProducerID] = true
	}
	if len(ids) != 3 {
		t.Errorf("%d producer ids in use, want 3", len(ids))
	}
	described, err := kadm.NewClient(plainClient(t, brokers)).DescribeTransactions(testContext(t), ringIDs(cfg.transactionalIDs())...)
	if err != nil || len(described) != 3 {
		t.Errorf("transactions of the ids: %v, %v", described, err)
	}
	for id, transaction := range described {
		if transaction.Err != nil || !ids[transaction.ProducerID] {
			t.Errorf("transactional id %s: producer id %d, %v", id, transaction.ProducerID, transaction.Err)
		}
	}
	_, facts := open(t, s)
	if facts.Record == nil || facts.Record.RecordedLSN != 0x106 || facts.Record.TransactionalIDs.Ring != 3 {
		t.Errorf("record: %+v", facts.Record)
	}
}

func TestIDsAreHandedOver(t *testing.T) {
	for _, c := range []struct {
		name               string
		formerRing, newRig int
		rename             bool
	}{
		{"to another prefix", 1, 1, true},
		{"to another prefix and a ring", 2, 3, true},
		{"from one to a ring", 1, 3, false},
		{"from a ring to one", 3, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			brokers := anyBrokers(t)
			topic := newTopic(t, brokers, 1, nil)
			cfg := testConfig(brokers)
			cfg.TransactionRing = c.formerRing
			former, _ := open(t, ready(t, cfg))
			publish(t, former, batch(0x100, topic, "former"))
			zombie := former.ring[c.formerRing-1]
			half(t, former, zombie, batch(0x150, topic, "zombie"))

			cfg.TransactionRing = c.newRig
			if c.rename {
				cfg.TransactionalIDPrefix += ".renamed"
			}
			s := newSink(t, cfg)
			p, facts := open(t, s)
			if got := recordedLSN(facts); got != 0x100 {
				t.Errorf("recorded LSN %s, want 0/100", got)
			}
			if err := zombie.commit(testContext(t), former.transactionsV2); err == nil {
				t.Fatal("an id that only the record names could still commit")
			}
			named := map[string]bool{}
			for _, id := range ringIDs(facts.Record.TransactionalIDs) {
				named[id] = true
			}
			if first := p.rested(); !named[first.id] {
				t.Errorf("first used id %s is not named by the record", first.id)
			}
			publish(t, p, batch(0x200, topic, "first"))
			for i := range 3 {
				publish(t, p, batch(cdc.LSN(0x300+i), topic, fmt.Sprint(i)))
			}
			if len(p.former) != 0 || len(p.usable) != c.newRig {
				t.Errorf("after the first commit: %d former ids, %d usable", len(p.former), len(p.usable))
			}
			p.Close()
			_, facts = open(t, s)
			if facts.Record.TransactionalIDs != cfg.transactionalIDs() || facts.Record.RecordedLSN != 0x302 {
				t.Errorf("record: %+v", facts.Record)
			}
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, []string{"former", "first", "0", "1", "2"}) {
				t.Errorf("visible: %v", got)
			}
		})
	}
}

func TestPinsAreReadBack(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 3, map[string]string{"max.message.bytes": "2000000", "cleanup.policy": "compact"})
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	facts, err := p.Topic(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	if facts.Partitions != 3 || facts.MaxMessageBytes != 2000000 || !facts.Compacted || facts.ID == "" {
		t.Errorf("topic facts: %+v", facts)
	}
	pins := []cdc.TopicPin{facts.TopicPin, {Topic: "gone", ID: "x", Partitions: 1}}
	b := batch(0x100, topic, "a")
	b.Pins = pins
	publish(t, p, b)
	p.sincePins = repeatPinsAfter // due again: the same pins, not none
	publish(t, p, batch(0x200, topic, "b"))
	p.Close()

	_, read := open(t, s)
	if diff := cmp.Diff(pins, read.Pins); diff != "" {
		t.Errorf("pins (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[cdc.Topic]cdc.TopicFacts{topic: facts}, read.Topics); diff != "" {
		t.Errorf("facts of the pinned topics (-want +got):\n%s", diff)
	}
}

func TestTopic(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	s := ready(t, cfg)
	p, _ := open(t, s)
	for _, name := range []string{"", ".", "..", "with space", "ü", "a/b", strings.Repeat("x", 250), cfg.PositionTopic} {
		t.Run("refuses "+name[:min(20, len(name))], func(t *testing.T) {
			_, err := p.Topic(testContext(t), cdc.Topic(name))
			if problem := cdc.AsProblem(err); problem == nil || problem.Treatment != cdc.Halt || problem.Reason != cdc.HaltBadRow {
				t.Errorf("Topic: %v", err)
			}
		})
	}
	missing := cdc.Topic("missing-" + cfg.Relay)
	t.Run("names the way out for a missing topic", func(t *testing.T) {
		_, err := p.Topic(testContext(t), missing)
		problem := cdc.AsProblem(err)
		if problem == nil || problem.Treatment != cdc.Setup || problem.Reason != "" || !strings.Contains(problem.Fix, string(missing)) {
			t.Errorf("Topic: %v", err)
		}
	})
	t.Run("creates a missing topic where it may", func(t *testing.T) {
		cfg.CreateTopics = true
		p, _ := open(t, newSink(t, cfg))
		facts, err := p.Topic(testContext(t), missing)
		if err != nil || facts.Partitions != 3 || facts.Compacted {
			t.Fatalf("Topic: %+v, %v", facts, err)
		}
		publish(t, p, batch(0x100, missing, "a"))
		if got := values(visible(t, brokers, string(missing))); !cmp.Equal(got, []string{"a"}) {
			t.Errorf("visible: %v", got)
		}
	})
}

func TestRecordBatchesFitTheTopic(t *testing.T) {
	brokers := anyBrokers(t)
	for _, c := range []struct {
		name            string
		max, size, rows int
	}{
		{"many records, a small limit", 2000, 500, 20},
		{"one record just below a small limit", 2000, 1800, 1},
		{"a record beyond franz-go's default limit", 5 << 20, 4 << 20, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := newTopic(t, brokers, 1, map[string]string{"max.message.bytes": fmt.Sprint(c.max)})
			s := ready(t, testConfig(brokers))
			p, _ := open(t, s)
			var want []string
			for i := range c.rows {
				want = append(want, strings.Repeat(string(rune('a'+i)), c.size))
			}
			publish(t, p, batch(0x100, topic, want...))
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, want) {
				t.Errorf("%d records visible, want %d", len(got), len(want))
			}
		})
	}
	t.Run("the largest record by cdc.Record.Bytes, less 40", func(t *testing.T) {
		const limit = 20000
		topic := newTopic(t, brokers, 1, map[string]string{"max.message.bytes": fmt.Sprint(limit)})
		s := ready(t, testConfig(brokers))
		p, _ := open(t, s)
		b := batch(0x100, topic, "")
		r := &b.Records[0]
		r.Headers = []cdc.Header{{Key: "h", Value: []byte("1")}}
		r.Value = make([]byte, limit-40-r.Bytes())
		publish(t, p, b)
	})
}

func TestPublishReusesItsRecords(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	big := batch(0x100, topic)
	for i := range 1000 {
		big.Records = append(big.Records, cdc.Record{Topic: topic, Value: fmt.Append(nil, i), Headers: []cdc.Header{{Key: "n", Value: fmt.Append(nil, i)}}})
	}
	publish(t, p, big)
	for _, r := range p.records[:cap(p.records)] {
		if r.Value != nil || r.Headers != nil {
			t.Fatal("the publisher keeps a part of the batch")
		}
	}
	publish(t, p, batch(0x200, topic, "last"))
	records := visible(t, brokers, string(topic))
	if len(records) != 1001 || string(records[1000].Value) != "last" || len(records[1000].Headers) != 0 {
		t.Fatalf("%d records visible", len(records))
	}
	for i, r := range records[:1000] {
		if string(r.Value) != fmt.Sprint(i) || string(r.Headers[0].Value) != fmt.Sprint(i) {
			t.Fatalf("record %d: %s, header %s", i, r.Value, r.Headers[0].Value)
		}
	}
}
