package notifier

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// patience is how long a test waits for what should come.
const patience = 30 * time.Second

// bed is everything around a notifier.
type bed struct {
	t        testing.TB
	kafka    *cdctest.Kafka
	topic    string
	client   *kgo.Client // produces
	pool     *pgxpool.Pool
	slack    *fakeslack.Server
	server   *httptest.Server
	registry *prometheus.Registry
	log      syncBuffer
	cfg      Config
}

// webhookPath is the secret of the fake Slack's URL.
const webhookPath = "/services/T0/B0/secretsecret"

func newBed(t testing.TB, partitions int32) *bed {
	t.Helper()
	return newBedOn(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t), partitions)
}

func newBedOn(t testing.TB, postgres *cdctest.Postgres, kafka *cdctest.Kafka, partitions int32) *bed {
	t.Helper()
	b := &bed{t: t, kafka: kafka, topic: kafka.Topic(t, partitions), slack: &fakeslack.Server{}}
	b.client = kafka.Client(t)
	b.server = httptest.NewServer(b.slack)
	t.Cleanup(b.server.Close)
	pool, err := pgxpool.New(context.Background(), postgres.DSN(postgres.Database(t), "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b.pool = pool
	if err := Migrate(context.Background(), pool); err != nil {
		t.Fatal(err)
	}
	b.cfg = Config{
		Kafka: KafkaConfig{
			Brokers: kafka.Brokers(), Topic: b.topic, Group: "notifier-" + uuid.NewString()[:8],
			DeadLetterTopic: kafka.TopicName(t), CreateDeadLetterTopic: true, Replication: 1,
		},
		Pool: pool,
		Slack: SlackConfig{
			WebhookURL: func() (string, error) { return b.server.URL + webhookPath, nil },
			RetryMin:   5 * time.Millisecond, RetryMax: 20 * time.Millisecond, RefusedRetry: 20 * time.Millisecond, Timeout: patience,
		},
		Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", b.log.String())
		}
	})
	return b
}

// running is a notifier that runs.
type running struct {
	*Notifier
	cancel context.CancelFunc
	ended  chan error
}

// run starts a notifier; it ends with the test.
func (b *bed) run(cfg Config) *running {
	b.t.Helper()
	b.registry = prometheus.NewRegistry()
	cfg.Registerer = b.registry
	n, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Notifier: n, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- n.Run(ctx) }()
	b.t.Cleanup(func() { r.stop(b.t) })
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	err := <-r.ended
	r.ended <- nil // for the next stop
	if err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// syncBuffer collects a log.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // between two looks
	}
}

// sample is a payment of a reservation.
func sample(reservation string, value int64) event.Payment {
	return event.Payment{
		PaymentID: uuid.NewString(), ReservationID: reservation, UserID: uuid.NewString(), Status: event.StatusCompleted,
		Amount: event.Amount{Value: value, Currency: "KRW"}, ExecutedAt: time.Now(),
	}
}

// record makes the record that the relay writes.
func (b *bed) record(p event.Payment) *kgo.Record {
	b.t.Helper()
	eventType, payload, err := event.Encode(p)
	if err != nil {
		b.t.Fatal(err)
	}
	return &kgo.Record{Topic: b.topic, Key: []byte(p.ReservationID), Value: payload, Headers: []kgo.RecordHeader{
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(uuid.Must(uuid.NewV7()).String())},
		{Key: "ce_source", Value: []byte("/payments")},
		{Key: "ce_type", Value: []byte(eventType)},
		{Key: "ce_time", Value: []byte(p.ExecutedAt.UTC().Format(time.RFC3339Nano))},
		{Key: "content-type", Value: []byte("application/json")},
	}}
}

// again is the same event in a second record.
func again(r *kgo.Record) *kgo.Record {
	return &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: slices.Clone(r.Headers)}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func setHeader(r *kgo.Record, key, value string) {
	i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
	r.Headers[i].Value = []byte(value)
}

func (b *bed) produce(records ...*kgo.Record) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// messagesOf counts the accepted messages that name an event.
func (b *bed) messagesOf(r *kgo.Record) (n, noted int) {
	id := header(r, "ce_id")
	for _, m := range b.slack.Messages() {
		if strings.Contains(string(m.Body), id) {
			n++
			if strings.Contains(m.Text, "(possibly repeated)") {
				noted++
			}
		}
	}
	return n, noted
}

// stateOf is the inbox's word on an event.
func (b *bed) stateOf(r *kgo.Record) string {
	b.t.Helper()
	var state string
	err := b.pool.QueryRow(context.Background(), `SELECT coalesce((SELECT state FROM notifier_inbox WHERE event_id = $1::uuid), 'absent')`, header(r, "ce_id")).Scan(&state)
	if err != nil {
		b.t.Fatal(err)
	}
	return state
}

// metric is the sum of all series of a name whose labels have the values.
func (b *bed) metric(name string, values ...string) float64 {
	b.t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var have []string
			for _, label := range m.GetLabel() {
				have = append(have, label.GetValue())
			}
			if !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(have, v) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func (b *bed) outcome(o outcome) float64 {
	b.t.Helper()
	return b.metric("notifier_deliveries_total", string(o))
}
