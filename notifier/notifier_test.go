package notifier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

func TestEveryEventIsOneMessage(t *testing.T) {
	b := newBed(t, 3)
	var records []*kgo.Record
	for i := range 20 {
		records = append(records, b.record(sample(uuid.NewString(), int64(1000+i))))
	}
	b.produce(records...)
	b.produce(again(records[3]), again(records[7]))
	b.run(b.cfg)
	until(t, "all delivered and the repeats skipped", func() bool {
		return b.outcome(outcomeDelivered) == 20 && b.outcome(outcomeDuplicate) == 2
	})
	for i, r := range records {
		if n, noted := b.messagesOf(r); n != 1 || noted != 0 {
			t.Errorf("event %d: got %d messages, %d with a note, want one without", i, n, noted)
		}
		if state := b.stateOf(r); state != "sent" {
			t.Errorf("event %d is %s in the inbox, want sent", i, state)
		}
	}
	if got := b.metric("notifier_end_to_end_latency_seconds"); got != 20 {
		t.Errorf("got %v end-to-end latencies, want 20", got)
	}
	until(t, "no lag", func() bool { return b.metric("notifier_consumer_lag_seconds") == 0 })
}

func TestOrderPerKey(t *testing.T) {
	b := newBed(t, 4)
	reservations := []string{uuid.NewString(), uuid.NewString(), uuid.NewString()}
	for i := range 30 {
		b.produce(b.record(sample(reservations[i%3], int64(100000+i))))
	}
	// Trouble in between must not let a later message overtake.
	b.slack.Script(fakeslack.Answer{}, fakeslack.Answer{Status: 500}, fakeslack.Answer{}, fakeslack.Answer{Status: 429, RetryAfter: "0"}, fakeslack.Answer{Status: 404, Body: "no_service"})
	b.run(b.cfg)
	until(t, "all delivered", func() bool { return b.outcome(outcomeDelivered) == 30 })
	last := map[string]string{}
	for _, m := range b.slack.Messages() {
		for _, reservation := range reservations {
			if !strings.Contains(m.Text, reservation) {
				continue
			}
			amount, _, _ := strings.Cut(strings.TrimPrefix(m.Text, "Payment completed: "), " ")
			if amount <= last[reservation] {
				t.Errorf("%s came after %s", amount, last[reservation])
			}
			last[reservation] = amount
		}
	}
}

func TestARestartRepeatsNothing(t *testing.T) {
	b := newBed(t, 2)
	var records []*kgo.Record
	for range 10 {
		records = append(records, b.record(sample(uuid.NewString(), 5)))
	}
	b.produce(records[:5]...)
	first := b.run(b.cfg)
	until(t, "five delivered", func() bool { return b.outcome(outcomeDelivered) == 5 })
	first.stop(t)
	b.produce(records[5:]...)
	b.run(b.cfg)
	until(t, "the others delivered", func() bool { return b.outcome(outcomeDelivered) == 5 })
	if got := b.outcome(outcomeDuplicate); got != 0 {
		t.Errorf("%v records came again although their offsets were committed", got)
	}
	if got := len(b.slack.Messages()); got != 10 {
		t.Errorf("got %d messages, want 10", got)
	}
}

// crash posts one event and dies before the outcome is noted: what a killed
// process leaves behind is the row it wrote before the post.
func crash(b *bed, r *kgo.Record) {
	b.t.Helper()
	e, err := readEntry(r)
	if err != nil {
		b.t.Fatal(err)
	}
	if c, err := (&inbox{pool: b.pool}).claim(context.Background(), e, r); err != nil || c == nil || c.doubtful {
		b.t.Fatalf("claim: %v, %v", c, err)
	}
	s := newSlack(b.cfg.Slack.withDefaults())
	defer s.close()
	if a := s.post(context.Background(), newMessage(e, messageOptions{})); a.err != nil {
		b.t.Fatal(a.err)
	}
}

func TestACrashBetweenPostAndNote(t *testing.T) {
	t.Run("is repeated once with a note under at_least_once", func(t *testing.T) {
		b := newBed(t, 1)
		r, next := b.record(sample(uuid.NewString(), 5)), b.record(sample(uuid.NewString(), 6))
		crash(b, r)
		b.produce(r, next)
		b.run(b.cfg)
		until(t, "both delivered", func() bool { return b.outcome(outcomeDelivered) == 2 })
		if n, noted := b.messagesOf(r); n != 2 || noted != 1 {
			t.Errorf("got %d messages, %d of them with a note, want 2 and 1", n, noted)
		}
		if n, noted := b.messagesOf(next); n != 1 || noted != 0 {
			t.Errorf("the next event: got %d messages, %d with a note, want one without", n, noted)
		}
		if got := b.metric("notifier_possibly_repeated_total"); got != 1 {
			t.Errorf("possibly_repeated_total is %v, want 1", got)
		}
	})
	t.Run("is given up under at_most_once", func(t *testing.T) {
		b := newBed(t, 1)
		r, next := b.record(sample(uuid.NewString(), 5)), b.record(sample(uuid.NewString(), 6))
		crash(b, r)
		b.produce(r, next)
		b.cfg.Repeat = RepeatAtMostOnce
		b.run(b.cfg)
		until(t, "the next delivered", func() bool { return b.outcome(outcomeDelivered) == 1 })
		if n, _ := b.messagesOf(r); n != 1 || b.stateOf(r) != "unknown" || b.outcome(outcomeGivenUp) != 1 {
			t.Errorf("got %d messages and state %s, want 1 and unknown", n, b.stateOf(r))
		}
	})
}

func TestAStopWaitsForThePost(t *testing.T) {
	b := newBed(t, 1)
	hold := make(chan struct{})
	b.slack.Script(fakeslack.Answer{Hold: hold})
	r := b.record(sample(uuid.NewString(), 5))
	b.produce(r)
	n := b.run(b.cfg)
	until(t, "the message is at Slack", func() bool { return len(b.slack.Messages()) == 1 })
	n.cancel()
	close(hold)
	n.stop(t)
	if state := b.stateOf(r); state != "sent" {
		t.Fatalf("the inbox says %s, want sent", state)
	}
	b.run(b.cfg)
	next := b.record(sample(uuid.NewString(), 6))
	b.produce(next)
	until(t, "the next delivered", func() bool { return b.outcome(outcomeDelivered) == 1 })
	if n, _ := b.messagesOf(r); n != 1 || b.outcome(outcomeDuplicate) != 0 {
		t.Errorf("got %d messages and %v duplicates: the stop did not commit", n, b.outcome(outcomeDuplicate))
	}
}

func TestMaximumAge(t *testing.T) {
	b := newBed(t, 1)
	b.cfg.MaxAge = time.Hour
	old := sample(uuid.NewString(), 1)
	old.ExecutedAt = time.Now().Add(-2 * time.Hour)
	oldRecord, young := b.record(old), b.record(sample(uuid.NewString(), 2))
	noTime := b.record(sample(uuid.NewString(), 3)) // judged by the record's timestamp
	setHeader(noTime, "ce_time", "yesterday")
	noTime.Timestamp = time.Now().Add(-3 * time.Hour)
	begun := b.record(old) // begun while it was young: an outage must not swallow it
	e, _ := readEntry(begun)
	if _, err := (&inbox{pool: b.pool}).claim(context.Background(), e, begun); err != nil {
		t.Fatal(err)
	}
	if err := (&inbox{pool: b.pool}).release(context.Background(), e.id); err != nil {
		t.Fatal(err)
	}
	b.produce(oldRecord, noTime, young, begun)
	b.run(b.cfg)
	until(t, "all decided", func() bool { return b.outcome(outcomeDelivered) == 2 && b.outcome(outcomeFiltered) == 2 })
	for r, want := range map[*kgo.Record]string{oldRecord: "filtered", noTime: "filtered", young: "sent", begun: "sent"} {
		if state := b.stateOf(r); state != want {
			t.Errorf("event %s is %s, want %s", header(r, "ce_id"), state, want)
		}
	}
}

func TestUnknownTypesAreSkipped(t *testing.T) {
	b := newBed(t, 1)
	r := b.record(sample(uuid.NewString(), 1))
	setHeader(r, "ce_type", "payment.refunded.v1")
	b.produce(r, b.record(sample(uuid.NewString(), 2)))
	b.run(b.cfg)
	until(t, "one skipped, one delivered", func() bool { return b.outcome(outcomeUnknownType) == 1 && b.outcome(outcomeDelivered) == 1 })
	if b.stateOf(r) != "absent" || len(b.slack.Messages()) != 1 {
		t.Errorf("the unknown event is %s, and there are %d messages", b.stateOf(r), len(b.slack.Messages()))
	}
}

func TestAbortedRecordsAreNeverSeen(t *testing.T) {
	b := newBed(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := b.kafka.Client(t, kgo.TransactionalID(b.topic))
	transaction := func(r *kgo.Record, end kgo.TransactionEndTry) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	aborted, committed := b.record(sample(uuid.NewString(), 1)), b.record(sample(uuid.NewString(), 2))
	transaction(aborted, kgo.TryAbort)
	transaction(committed, kgo.TryCommit)
	b.run(b.cfg)
	until(t, "the committed one delivered", func() bool { return b.outcome(outcomeDelivered) == 1 })
	if n, _ := b.messagesOf(aborted); n != 0 || b.metric("notifier_records_consumed_total") != 1 {
		t.Errorf("the aborted event has %d messages, %v records were consumed", n, b.metric("notifier_records_consumed_total"))
	}
}

// Two members share the work; when one leaves, the other takes over without a
// repeat and without a gap.
func TestARebalanceInTheMiddle(t *testing.T) {
	b := newBed(t, 6)
	var records []*kgo.Record
	for range 60 {
		records = append(records, b.record(sample(uuid.NewString(), 5)))
	}
	b.cfg.Slack.Interval = 5 * time.Millisecond
	first := b.run(b.cfg)
	b.produce(records[:20]...)
	until(t, "some delivered", func() bool { return len(b.slack.Messages()) >= 5 })
	b.run(b.cfg)
	b.produce(records[20:40]...)
	until(t, "the second has partitions", func() bool { return b.metric("notifier_assigned_partitions") > 0 })
	b.produce(records[40:]...)
	first.stop(t)
	until(t, "all delivered", func() bool { return len(b.slack.Messages()) >= 60 })
	for i, r := range records {
		until(t, "event is sent", func() bool { return b.stateOf(r) == "sent" })
		if n, _ := b.messagesOf(r); n != 1 {
			t.Errorf("event %d: got %d messages, want 1", i, n)
		}
	}
}

func TestTheDatabaseGoesAway(t *testing.T) {
	postgres := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	b := newBedOn(t, postgres, cdctest.SharedKafka(t), 1)
	before, after := b.record(sample(uuid.NewString(), 5)), b.record(sample(uuid.NewString(), 6))
	b.produce(before)
	hold := make(chan struct{})
	b.slack.Script(fakeslack.Answer{Hold: hold})
	n := b.run(b.cfg)
	until(t, "the message is at Slack", func() bool { return len(b.slack.Messages()) == 1 })
	postgres.Stop(t, "immediate")
	close(hold)
	b.produce(after)
	until(t, "the notifier waits", func() bool { return n.Status().State == StateWaiting })
	if got := len(b.slack.Messages()); got != 1 {
		t.Fatalf("%d messages were posted without the inbox", got)
	}
	postgres.Start(t)
	until(t, "both delivered", func() bool { return b.outcome(outcomeDelivered) == 2 })
	for _, r := range []*kgo.Record{before, after} {
		if n, noted := b.messagesOf(r); n != 1 || noted != 0 {
			t.Errorf("got %d messages, %d with a note, want one without", n, noted)
		}
	}
	until(t, "the notifier is well", func() bool { return n.Status().State == StateRunning })
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	b := newBed(t, 1)
	for name, test := range map[string]struct {
		change func(cfg *Config)
		want   string
	}{
		"the inbox": {func(cfg *Config) {
			server := cdctest.SharedPostgres(t)
			pool, err := pgxpool.New(context.Background(), server.DSN(server.Database(t), "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			cfg.Pool = pool
		}, "notifier migrate"},
		"the dead letter topic": {func(cfg *Config) {
			cfg.Kafka.CreateDeadLetterTopic, cfg.Kafka.DeadLetterTopic = false, b.kafka.TopicName(t)
		}, "kafka.create_topics"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := b.cfg
			test.change(&cfg)
			n, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = n.Run(context.Background())
			problem, ok := errors.AsType[*Problem](err)
			if !ok || !strings.Contains(problem.Fix, test.want) {
				t.Errorf("got %v, want a way out with %q", err, test.want)
			}
		})
	}
}

func TestTheInboxIsPrunedAndMigratedTwice(t *testing.T) {
	b := newBed(t, 1)
	ctx := context.Background()
	if err := Migrate(ctx, b.pool); err != nil {
		t.Fatal(err)
	}
	for i, state := range inboxStates() {
		for j, age := range []string{"1 hour", "31 days"} {
			_, err := b.pool.Exec(ctx, `INSERT INTO notifier_inbox (event_id, state, event_type, topic, partition, record_offset, updated_at)
				VALUES ($1, $2, 'x', 't', 0, $3, now() - $4::text::interval)`, uuid.New(), state, i*10+j, age)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	pruned, err := (&inbox{pool: b.pool}).prune(ctx, 30*24*time.Hour)
	if err != nil || pruned != 3 {
		t.Errorf("pruned %d rows, %v; want the old ones of sent, unknown and filtered", pruned, err)
	}
	counts, err := (&inbox{pool: b.pool}).counts(ctx)
	if got, want := fmt.Sprint(counts), "map[dead:2 filtered:1 sending:2 sent:1 unknown:1 waiting:2]"; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestConfigProblemsComeAtOnce(t *testing.T) {
	err := Config{
		Kafka:  KafkaConfig{Brokers: []string{"nowhere"}, Topic: "a", DeadLetterTopic: "a", SASL: SASLConfig{Mechanism: "PLAIN"}, TLS: TLSConfig{KeyFile: "x"}},
		Repeat: "maybe", MaxAge: -1,
	}.Validate()
	for _, want := range []string{"host:port", "is the topic that is consumed", "username and password", "go together", "no webhook URL", "maybe", "negative"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	m := newMetrics("slack")
	m.lags = func() []partitionLag {
		return []partitionLag{{topic: "t", partition: 1, records: 2, oldest: time.Now().Add(-time.Minute)}}
	}
	m.inboxRows.WithLabelValues("sent").Set(1)
	m.consumed.WithLabelValues("t").Inc()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(m); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestKafkaGoesAway(t *testing.T) {
	kafka := cdctest.StartKafka(t)
	b := newBedOn(t, cdctest.SharedPostgres(t), kafka, 2)
	first := b.record(sample(uuid.NewString(), 1))
	b.produce(first)
	b.run(b.cfg)
	until(t, "the first delivered", func() bool { return b.stateOf(first) == "sent" })
	kafka.Stop(t)
	kafka.Start(t)
	second := b.record(sample(uuid.NewString(), 2))
	b.produce(second)
	until(t, "the second delivered", func() bool { return b.stateOf(second) == "sent" })
	for _, r := range []*kgo.Record{first, second} {
		if n, noted := b.messagesOf(r); n != 1 || noted != 0 {
			t.Errorf("got %d messages, %d with a note, want one without", n, noted)
		}
	}
}

func TestAStopWithoutKafkaIsBounded(t *testing.T) {
	kafka := cdctest.StartKafka(t)
	b := newBedOn(t, cdctest.SharedPostgres(t), kafka, 1)
	r := b.record(sample(uuid.NewString(), 1))
	b.produce(r)
	n := b.run(b.cfg)
	until(t, "delivered", func() bool { return b.stateOf(r) == "sent" })
	b.client.Close()
	kafka.Stop(t)
	began := time.Now()
	n.stop(t)
	if took := time.Since(began); took > commitTimeout+leaveTimeout+2*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

// A dead letter that the broker would not take with its value is written without.
func TestADeadLetterThatIsTooLarge(t *testing.T) {
	b := newBed(t, 1)
	r := b.record(sample(uuid.NewString(), 1))
	r.Value = []byte("{" + strings.Repeat(" ", 1_000_012-500))
	b.produce(r)
	n := b.run(b.cfg)
	until(t, "a dead letter", func() bool { return b.outcome(outcomeDeadLettered) == 1 })
	letters, err := n.DeadLetters(context.Background())
	if err != nil || len(letters) != 1 || letters[0].Reason != reasonUndecodable {
		t.Fatalf("got %+v, %v", letters, err)
	}
	if size := len(letters[0].Record.Value); size != 0 {
		t.Errorf("the value of %d bytes fitted; this test tests nothing", size)
	}
}
