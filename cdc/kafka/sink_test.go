package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// foreign is somebody else's transactional producer on the position topic.
func foreign(t testing.TB, s *Sink, timeout time.Duration) *kgo.Client {
	t.Helper()
	return plainClient(t, s.cfg.Brokers, kgo.TransactionalID("foreign-"+s.cfg.Relay), kgo.TransactionTimeout(timeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(s.cfg.PositionTopic), kgo.ProducerLinger(0),
		kgo.ConcurrentTransactionsBackoff(5*time.Millisecond))
}

// attempt produces one position record in a transaction of its own.
func attempt(t testing.TB, cl *kgo.Client, key string, recorded cdc.LSN) {
	t.Helper()
	value, err := position(recorded).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(testContext(t), &kgo.Record{Key: []byte(key), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func end(t testing.TB, cl *kgo.Client, commit kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.EndTransaction(testContext(t), commit); err != nil {
		t.Fatal(err)
	}
}

func TestOpenWithoutPosition(t *testing.T) {
	brokers := anyBrokers(t)
	s := newSink(t, testConfig(brokers))
	for _, c := range []string{"no position topic", "an empty position topic"} {
		t.Run(c, func(t *testing.T) {
			_, facts := open(t, s)
			if facts.Record != nil || facts.Pins != nil || facts.ClusterID == "" {
				t.Errorf("facts: %+v", facts)
			}
			advised, err := s.Advise(testContext(t))
			if err != nil || advised.Record != nil || advised.ClusterID != facts.ClusterID {
				t.Errorf("Advise: %+v, %v", advised, err)
			}
		})
		if _, err := s.EnsurePositionTopic(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenReadsThroughAbortedTransactions(t *testing.T) {
	brokers := anyBrokers(t)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	b := batch(0x100, "")
	b.Pins = []cdc.TopicPin{{Topic: "t", ID: "id", Partitions: 3}}
	publish(t, p, b)
	publish(t, p, batch(0x200, ""))
	p.Close()
	// Far more offsets than the first backward step, all aborted, and with keys
	// that would win if they were not.
	other := foreign(t, s, time.Minute)
	for i := range firstReadOffsets {
		attempt(t, other, s.cfg.Relay, cdc.LSN(0x1000+i))
		end(t, other, kgo.TryAbort)
	}
	attempt(t, other, "another-relay", 0x9999)
	end(t, other, kgo.TryCommit)

	_, facts := open(t, s)
	if got := recordedLSN(facts); got != 0x200 {
		t.Errorf("recorded LSN %s, want 0/200", got)
	}
	if diff := cmp.Diff(b.Pins, facts.Pins); diff != "" {
		t.Errorf("pins (-want +got):\n%s", diff)
	}
	advised, err := s.Advise(testContext(t))
	if err != nil || recordedLSN(advised) != 0x200 {
		t.Errorf("Advise: %s, %v", recordedLSN(advised), err)
	}
}

// TestOpenTakesTheNewestRecord commits a record behind another one that reaches
// farther, as the first one on a new timeline does.
func TestOpenTakesTheNewestRecord(t *testing.T) {
	s := ready(t, testConfig(anyBrokers(t)))
	p, _ := open(t, s)
	publish(t, p, batch(0x300, ""))
	publish(t, p, batch(0x200, ""))
	p.Close()
	_, facts := open(t, s)
	if got := recordedLSN(facts); got != 0x200 {
		t.Errorf("recorded LSN %s, want 0/200", got)
	}
	advised, err := s.Advise(testContext(t))
	if err != nil || recordedLSN(advised) != 0x200 {
		t.Errorf("Advise: %s, %v", recordedLSN(advised), err)
	}
}

func TestOpenReadsThroughGaps(t *testing.T) {
	cluster := fake(t)
	s := ready(t, testConfig(cluster.ListenAddrs()))
	p, _ := open(t, s)
	publish(t, p, batch(0x100, ""))
	other := foreign(t, s, time.Minute)
	for i := range 400 {
		attempt(t, other, "another-relay", cdc.LSN(i))
		end(t, other, kgo.TryCommit)
	}
	cluster.Compact()
	at, err := s.positionLog(p.admin).bounds(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if left := len(visible(t, s.cfg.Brokers, s.cfg.PositionTopic)); left > 10 || at.high < 800 {
		t.Fatalf("%d records left below %d: the compaction made no gap", left, at.high)
	}
	t.Run("left by compaction", func(t *testing.T) {
		_, facts := open(t, s)
		if got := recordedLSN(facts); got != 0x100 {
			t.Errorf("recorded LSN %s, want 0/100", got)
		}
	})
	t.Run("up to the end", func(t *testing.T) {
		var all kadm.Offsets
		all.Add(kadm.Offset{Topic: s.cfg.PositionTopic, At: at.high, LeaderEpoch: -1})
		if _, err := kadm.NewClient(plainClient(t, s.cfg.Brokers)).DeleteRecords(testContext(t), all); err != nil {
			t.Fatal(err)
		}
		_, facts := open(t, s)
		if facts.Record != nil {
			t.Errorf("record: %+v", facts.Record)
		}
	})
}

func TestOpenNeverGuesses(t *testing.T) {
	cluster := fake(t)
	s := ready(t, testConfig(cluster.ListenAddrs()))
	p, _ := open(t, s)
	publish(t, p, batch(0x100, ""))
	p.Close()
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		asked := req.(*kmsg.FetchRequest).Topics[0]
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.LastStableOffset = asked.Partitions[0].FetchOffset, asked.Partitions[0].FetchOffset
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
		topic.Partitions = append(topic.Partitions, partition)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	if _, _, err := s.Open(testContext(t)); err == nil || !strings.Contains(err.Error(), "was read to offset 0 of") {
		t.Errorf("Open: %v", err)
	}
	if _, err := s.Advise(testContext(t)); err == nil {
		t.Error("Advise took silence for the absence of a record")
	}
}

func TestOpenWaitsForAForeignTransaction(t *testing.T) {
	brokers := anyBrokers(t)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	publish(t, p, batch(0x100, ""))
	p.Close()
	settle(t, s)
	other := foreign(t, s, time.Minute)
	attempt(t, other, s.cfg.Relay, 0x200)

	advised, err := s.Advise(testContext(t))
	if err != nil || recordedLSN(advised) != 0x100 {
		t.Errorf("Advise: %s, %v", recordedLSN(advised), err)
	}
	type opened struct {
		publisher cdc.Publisher
		facts     cdc.KafkaFacts
		err       error
	}
	done := make(chan opened, 1)
	go func() {
		p, facts, err := s.Open(testContext(t))
		done <- opened{p, facts, err}
	}()
	select {
	case got := <-done:
		t.Fatalf("Open did not wait: %+v", got)
	case <-time.After(300 * time.Millisecond):
	}
	end(t, other, kgo.TryCommit)
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.publisher.Close()
	if lsn := recordedLSN(got.facts); lsn != 0x200 {
		t.Errorf("recorded LSN %s, want 0/200", lsn)
	}
}

func TestOpenHaltsAtAHangingTransaction(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	cfg.TransactionTimeout = 2 * time.Second
	s := ready(t, cfg)
	s.abortInterval = time.Second
	other := foreign(t, s, 5*time.Minute)
	attempt(t, other, s.cfg.Relay, 0x200)

	// No single Open lasts long enough; the sink adds them up.
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 1750*time.Millisecond)
		_, _, err = s.Open(ctx)
		cancel()
		if problem := cdc.AsProblem(err); problem == nil || problem.Treatment != cdc.Retry {
			break
		}
	}
	problem := cdc.AsProblem(err)
	if problem == nil || problem.Treatment != cdc.Halt || problem.Reason != cdc.HaltHangingTransaction {
		t.Fatalf("Open: %v", err)
	}
	id, _, err := other.ProducerID(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Open(testContext(t)) // once more: the first may have had no time left to ask who it is
	problem = cdc.AsProblem(err)
	if problem == nil || !strings.Contains(problem.What, fmt.Sprintf("producer id %d ", id)) || !strings.Contains(problem.Fix, "abort --topic "+cfg.PositionTopic+" --partition 0 --start-offset 0") {
		t.Errorf("problem: %v", problem)
	}
	end(t, other, kgo.TryAbort)
	_, facts := open(t, s)
	if facts.Record != nil {
		t.Errorf("record: %+v", facts.Record)
	}
}

func TestAdviseFencesNobody(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	publish(t, p, batch(0x100, topic, "a"))
	settle(t, s)
	facts, err := s.Advise(testContext(t))
	if err != nil || recordedLSN(facts) != 0x100 {
		t.Errorf("Advise: %s, %v", recordedLSN(facts), err)
	}
	publish(t, p, batch(0x200, topic, "b"))
}

// A commit is answered before its marker is written. Whoever asks right after it
// must not be told of the record before.
func TestAdviseWaitsForTheMarker(t *testing.T) {
	brokers := anyBrokers(t)
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))
	p, _ := open(t, s)
	for i := range cdc.LSN(20) {
		publish(t, p, batch(0x100+i, topic, "a"))
		began := time.Now()
		facts, err := s.Advise(testContext(t))
		if err == nil && recordedLSN(facts) < 0x100+i && time.Since(began) >= markerWait {
			settle(t, s) // it waited for as long as it may, and the broker had no time
			continue
		}
		if err != nil || recordedLSN(facts) != 0x100+i {
			t.Fatalf("after the commit of %s Advise says %s, %v", 0x100+i, recordedLSN(facts), err)
		}
	}
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	brokers := anyBrokers(t)
	for name, value := range map[string]string{"a newer version": `{"version":99}`, "no JSON": `{`} {
		t.Run(name, func(t *testing.T) {
			s := ready(t, testConfig(brokers))
			other := foreign(t, s, time.Minute)
			if err := other.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := other.ProduceSync(testContext(t), &kgo.Record{Key: []byte(s.cfg.Relay), Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			end(t, other, kgo.TryCommit)
			if _, _, err := s.Open(testContext(t)); err == nil || !strings.Contains(err.Error(), "position record") {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

func TestPositionTopicMustBeFit(t *testing.T) {
	brokers := anyBrokers(t)
	for _, c := range []struct {
		name       string
		partitions int32
		policy     string
		what       string
	}{
		{"two partitions", 2, "compact", "has 2 partitions"},
		{"deleted by time", 1, "delete", "cleanup.policy=delete"},
		{"compacted and deleted", 1, "compact,delete", "cleanup.policy=compact,delete"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(brokers)
			cfg.PositionTopic = string(newTopic(t, brokers, c.partitions, map[string]string{"cleanup.policy": c.policy}))
			s := newSink(t, cfg)
			_, _, openErr := s.Open(testContext(t))
			_, adviseErr := s.Advise(testContext(t))
			_, ensureErr := s.EnsurePositionTopic(testContext(t))
			for _, err := range []error{openErr, adviseErr, ensureErr} {
				problem := cdc.AsProblem(err)
				if problem == nil || problem.Treatment != cdc.Setup || !strings.Contains(problem.What, c.what) || problem.Fix == "" {
					t.Errorf("problem: %v", err)
				}
			}
		})
	}
}

// untilAsked ends its context as soon as a broker was asked something.
type untilAsked struct{ refusal *refusal }

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (a untilAsked) OnBrokerWrite(kgo.BrokerMetadata, int16, int, time.Duration, time.Duration, error) {
	a.refusal.end()
}

func TestUnreachableBrokersEndInTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for name, addr := range map[string]string{
		"nobody listens": cdctest.Address(t),
		"nobody answers": silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			for call, do := range map[string]func(context.Context, *Sink) error{
				"Open":   func(ctx context.Context, s *Sink) error { _, _, err := s.Open(ctx); return err },
				"Advise": func(ctx context.Context, s *Sink) error { _, err := s.Advise(ctx); return err },
			} {
				s := newSink(t, testConfig([]string{addr}))
				ctx := untilRefused(t, s, anyRefusal)
				if name == "nobody answers" {
					s.hooks = append(s.hooks, untilAsked{ctx})
				}
				began := time.Now()
				err := do(ctx, s)
				if took := time.Since(began); took > 9*time.Second { // the client would wait for 10 s and longer
					t.Errorf("%s took %s", call, took)
				}
				problem, ok := errors.AsType[*cdc.Problem](err)
				if !ok || problem.Treatment != cdc.Retry || problem.Why == "" || problem.Fix == "" {
					t.Errorf("%s: %v", call, err)
				}
				if name == "nobody listens" && !strings.Contains(err.Error(), "no broker of ["+addr+"] answers") {
					t.Errorf("%s: %v", call, err)
				}
			}
		})
	}
}

// A connection that is still being made when the time is over has a way out too.
func TestAConnectionThatIsNotMadeIsExplained(t *testing.T) {
	cfg := testConfig([]string{cdctest.Address(t)})
	for range 20 { // which of two ends franz-go tells of is chance
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		cfg.Dial = func(dial context.Context, _, _ string) (net.Conn, error) {
			<-dial.Done()
			return nil, dial.Err()
		}
		_, err := newSink(t, cfg).Advise(ctx)
		cancel()
		problem, ok := errors.AsType[*cdc.Problem](err)
		if !ok || problem.Treatment != cdc.Retry || problem.Why == "" || problem.Fix == "" {
			t.Fatalf("Advise: %v", err)
		}
	}
}
