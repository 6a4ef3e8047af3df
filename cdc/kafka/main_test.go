package kafka

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// fake starts an in-process broker for one test.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SleepOutOfOrder()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// anyBrokers is the cluster in KAFKA_BROKERS, or else a fake one.
func anyBrokers(t testing.TB) []string {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	return fake(t).ListenAddrs()
}

// testConfig has names that no other test uses.
func testConfig(brokers []string) Config {
	name := "test-" + uuid.NewString()[:13]
	return Config{
		Brokers:               brokers,
		Relay:                 name,
		TransactionalIDPrefix: "cdc-relay." + name,
		PositionTopic:         "cdc-relay.position." + name,
		TransactionTimeout:    30 * time.Second, // on a busy machine a transaction may take long
		Partitions:            3,
		Replication:           1,
	}
}

func newSink(t testing.TB, cfg Config) *Sink {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ready is a sink whose position topic exists.
func ready(t testing.TB, cfg Config) *Sink {
	t.Helper()
	s := newSink(t, cfg)
	if _, err := s.EnsurePositionTopic(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// open opens a publisher that is closed with the test.
func open(t testing.TB, s *Sink) (*publisher, cdc.KafkaFacts) {
	t.Helper()
	p, facts, err := s.Open(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p.(*publisher), facts
}

// newTopic creates a topic of the test's own. A real cluster answers before its
// brokers know of the topic.
func newTopic(t testing.TB, brokers []string, partitions int32, configs map[string]string) cdc.Topic {
	t.Helper()
	name := "topic-" + uuid.NewString()[:13]
	settings := make(map[string]*string, len(configs))
	for key, value := range configs {
		settings[key] = kadm.StringPtr(value)
	}
	ctx, admin := testContext(t), kadm.NewClient(plainClient(t, brokers))
	if _, err := admin.CreateTopic(ctx, partitions, 1, settings, name); err != nil {
		t.Fatal(err)
	}
	for {
		ends, err := admin.ListEndOffsets(ctx, name) // of every partition, by its leader
		if firstError(ends, err) == nil && len(ends[name]) == int(partitions) {
			return cdc.Topic(name)
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("topic %s: %v", name, firstError(ends, err))
		}
	}
}

func plainClient(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.DisableClientMetrics()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// visible returns what a read_committed consumer sees of all partitions, after
// it has read up to the high watermark.
func visible(t testing.TB, brokers []string, topic string) []*kgo.Record {
	t.Helper()
	ctx := testContext(t)
	cl := plainClient(t, brokers)
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	want, partitions := make(map[int32]int64), make(map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		partitions[o.Partition] = kgo.NewOffset().AtStart()
		if o.Offset > 0 {
			want[o.Partition] = o.Offset
		}
	})
	consumer := plainClient(t, brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: partitions}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(), kgo.FetchMaxWait(100*time.Millisecond))
	defer consumer.Close()
	var records []*kgo.Record
	for len(want) > 0 {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%v, still to be read: %v", err, want)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if r.Offset >= want[r.Partition]-1 {
				delete(want, r.Partition)
			}
		})
	}
	return records
}

// settle waits for the markers of what was committed to the position topic. Who reads
// there without fencing waits for them for a moment only.
func settle(t testing.TB, s *Sink) {
	t.Helper()
	visible(t, s.cfg.Brokers, s.cfg.PositionTopic)
}

// refusal is a context whose deadline is over as soon as a connection was refused,
// however long a busy machine takes for that.
type refusal struct {
	context.Context
	is   func(error) bool
	once sync.Once
	over chan struct{}
}

// untilRefused ends when the sink's next connection fails with an error that is meant.
func untilRefused(t testing.TB, s *Sink, is func(error) bool) *refusal {
	t.Helper()
	r := &refusal{Context: context.Background(), is: is, over: make(chan struct{})}
	s.hooks = append(s.hooks, r) // behind the one that remembers the error
	timer := time.AfterFunc(30*time.Second, r.end)
	t.Cleanup(func() { timer.Stop(); r.end() })
	return r
}

func anyRefusal(error) bool { return true }

func (r *refusal) end() { r.once.Do(func() { close(r.over) }) }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (r *refusal) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil && r.is(err) {
		r.end()
	}
}

// Done implements context.Context.
func (r *refusal) Done() <-chan struct{} { return r.over }

// Err implements context.Context.
func (r *refusal) Err() error {
	select {
	case <-r.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// position is a record at which a test recognises its batch.
func position(recorded cdc.LSN) *cdc.PositionRecord {
	return &cdc.PositionRecord{
		Version: 1, State: cdc.RecordRunning, Mode: cdc.ExactlyOnce, Generation: 1, SystemID: "7301",
		Lineage: cdc.Lineage{{Timeline: 1}}, RecordedLSN: recorded, Slot: "slot",
	}
}

// batch has one record for each value, all to partition 0 of the topic.
func batch(recorded cdc.LSN, topic cdc.Topic, values ...string) *cdc.Batch {
	b := &cdc.Batch{Position: position(recorded)}
	for _, value := range values {
		b.Records = append(b.Records, cdc.Record{Topic: topic, Key: []byte("k"), Value: []byte(value)})
	}
	return b
}

func publish(t testing.TB, p cdc.Publisher, b *cdc.Batch) {
	t.Helper()
	if err := p.Publish(testContext(t), b); err != nil {
		t.Fatal(err)
	}
}

func recordedLSN(facts cdc.KafkaFacts) cdc.LSN {
	if facts.Record == nil {
		return 0
	}
	return facts.Record.RecordedLSN
}

// network is a dialer whose connections a test can disturb by the kind of request.
type network struct {
	mu sync.Mutex // guards on
	on func(key int16) fault
}

// fault is what happens to one request.
type fault int

const (
	pass         fault = iota
	loseResponse       // the broker gets the request, the client no answer: the connection ends
	loseRequest        // the connection ends before the broker gets it
	swallow            // the broker never gets it, the client waits
)

func (n *network) disturb(on func(key int16) fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.on = on
}

func (n *network) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &disturbedConn{Conn: conn, network: n}, nil
}

// disturbedConn relies on that franz-go writes a whole request at once.
type disturbedConn struct {
	net.Conn
	network *network
}

func (c *disturbedConn) Write(b []byte) (int, error) {
	c.network.mu.Lock()
	on := c.network.on
	c.network.mu.Unlock()
	if on == nil || len(b) < 6 {
		return c.Conn.Write(b)
	}
	switch on(int16(binary.BigEndian.Uint16(b[4:]))) {
	case loseRequest:
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	case swallow:
		return len(b), nil
	case loseResponse:
		n, err := c.Conn.Write(b)
		if err != nil {
			return n, err
		}
		// One byte of the answer proves that the broker has acted.
		_ = c.Conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, err = c.Conn.Read(make([]byte, 1))
		_ = c.Conn.Close()
		return n, err
	default:
		return c.Conn.Write(b)
	}
}
