package notifier

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

func TestPoisonBecomesADeadLetter(t *testing.T) {
	b := newBed(t, 1)
	broken := b.record(sample(uuid.NewString(), 1))
	broken.Value = []byte(`{"payment_id": 7`)
	tombstone := b.record(sample(uuid.NewString(), 1))
	tombstone.Value = nil
	badID := b.record(sample(uuid.NewString(), 1))
	setHeader(badID, "ce_id", "seven")
	noType := b.record(sample(uuid.NewString(), 1))
	setHeader(noType, "ce_type", "")
	good := b.record(sample(uuid.NewString(), 2))
	b.produce(broken, again(broken), tombstone, badID, noType, good)
	n := b.run(b.cfg)
	until(t, "all decided", func() bool {
		return b.outcome(outcomeDelivered) == 1 && b.outcome(outcomeDeadLettered) == 4 && b.outcome(outcomeDuplicate) == 1
	})
	letters, err := n.DeadLetters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]int{}
	for _, letter := range letters {
		reasons[letter.Reason]++
		if letter.State != "dead" || letter.Topic != b.topic || letter.Consumer != b.cfg.Kafka.Group || letter.Attempts != 1 || letter.Error == "" {
			t.Errorf("got %+v", letter)
		}
		if letter.EventID == header(broken, "ce_id") {
			if string(letter.Record.Value) != string(broken.Value) || string(letter.Record.Key) != string(broken.Key) || len(letter.Record.Headers) != len(broken.Headers) {
				t.Errorf("the record changed on its way: %+v", letter.Record)
			}
		}
	}
	for reason, want := range map[string]int{reasonUndecodable: 2, reasonBadEventID: 1, reasonNoEventType: 1} {
		if reasons[reason] != want || b.metric("notifier_dead_letter_records_total", reason) != float64(want) {
			t.Errorf("%s: got %d letters, metric %v, want %d", reason, reasons[reason], b.metric("notifier_dead_letter_records_total", reason), want)
		}
	}
	if strings.Contains(b.log.String(), string(broken.Key)) {
		t.Error("the log names a key")
	}
}

func TestRedrive(t *testing.T) {
	b := newBed(t, 1)
	b.slack.Script(fakeslack.Answer{Status: 400, Body: "invalid_blocks"}, fakeslack.Answer{Status: 400, Body: "invalid_blocks"})
	first, second := b.record(sample(uuid.NewString(), 1)), b.record(sample(uuid.NewString(), 2))
	broken := b.record(sample(uuid.NewString(), 3))
	broken.Value = []byte("{}")
	b.produce(first, second, broken)
	n := b.run(b.cfg)
	until(t, "three dead letters", func() bool { return b.outcome(outcomeDeadLettered) == 3 })
	letters, err := n.DeadLetters(context.Background())
	if err != nil || len(letters) != 3 {
		t.Fatalf("got %d letters, %v", len(letters), err)
	}
	redrive := func() map[string]string {
		t.Helper()
		got := map[string]string{}
		if err := n.Redrive(context.Background(), letters, func(letter DeadLetter, outcome string) { got[letter.EventID] = outcome }); err != nil {
			t.Fatal(err)
		}
		return got
	}

	b.slack.Always(&fakeslack.Answer{Status: 404, Body: "no_service"})
	err = n.Redrive(context.Background(), letters[:1], func(DeadLetter, string) { t.Error("a letter was decided") })
	if !errors.Is(err, errDestination) || strings.Contains(err.Error(), "secretsecret") {
		t.Errorf("got %v, want a refusal without the URL", err)
	}
	b.slack.Always(nil)

	b.slack.Script(fakeslack.Answer{Status: 400, Body: "invalid_blocks"})
	got := redrive()
	ids := []string{header(first, "ce_id"), header(second, "ce_id"), header(broken, "ce_id")}
	for i, want := range []outcome{outcomeDeadLettered, outcomeDelivered, outcomeDeadLettered} {
		if got[ids[i]] != string(want) {
			t.Errorf("letter %d: got %s, want %s", i, got[ids[i]], want)
		}
	}
	got = redrive()
	for i, want := range []outcome{outcomeDelivered, outcomeDuplicate, outcomeDeadLettered} {
		if got[ids[i]] != string(want) {
			t.Errorf("second time, letter %d: got %s, want %s", i, got[ids[i]], want)
		}
	}
	for _, r := range []*kgo.Record{first, second} {
		if n, noted := b.messagesOf(r); n != 1 || noted != 0 {
			t.Errorf("got %d messages, %d with a note, want one without", n, noted)
		}
	}
	again, err := n.DeadLetters(context.Background())
	if err != nil || len(again) != 3 {
		t.Fatalf("got %d letters, %v: a redrive must write none", len(again), err)
	}
	states := map[string]string{}
	for _, letter := range again {
		states[letter.EventID] = letter.State
	}
	if states[ids[0]] != "sent" || states[ids[1]] != "sent" || states[ids[2]] != "dead" {
		t.Errorf("got states %v", states)
	}
}

func TestOneRedriveAtATime(t *testing.T) {
	b := newBed(t, 1)
	n, err := New(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := b.pool.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(context.Background(), `SELECT pg_advisory_lock($1)`, redriveLock); err != nil {
		t.Fatal(err)
	}
	if err := n.Redrive(context.Background(), nil, nil); !errors.Is(err, ErrRedriveRunning) {
		t.Errorf("got %v, want ErrRedriveRunning", err)
	}
	if _, err := conn.Exec(context.Background(), `SELECT pg_advisory_unlock($1)`, redriveLock); err != nil {
		t.Fatal(err)
	}
	if err := n.Redrive(context.Background(), nil, nil); err != nil {
		t.Error(err)
	}
	if letters, err := n.DeadLetters(context.Background()); err != nil || len(letters) != 0 {
		t.Errorf("without a topic: got %v, %v, want no letters", letters, err)
	}
}

func TestAnErrorIsCutAtARune(t *testing.T) {
	it := &item{record: &kgo.Record{Value: []byte("x")}, poison: &unreadable{reason: reasonUndecodable, err: errors.New("a" + strings.Repeat("é", 1000))}}
	r := deadRecord("d", "c", it, it.record.Timestamp)
	if got := header(r, deadError); len(got) != maxErrorBytes-1 || !strings.HasSuffix(got, "é") {
		t.Errorf("got %d bytes, ending in %q", len(got), got[len(got)-2:])
	}
}
