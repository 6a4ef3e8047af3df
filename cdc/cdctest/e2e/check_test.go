package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

// most is how many findings of one kind are told.
const most = 5

// check compares answers, tables, records and messages.
func check(t *testing.T, s *stack, shop *seats, list []paid) {
	t.Helper()
	told := map[uuid.UUID]paid{} // by payment
	events := map[uuid.UUID]uuid.UUID{}
	for _, p := range list {
		if _, twice := told[p.ID]; twice {
			t.Errorf("payment %s is in two answers", p.ID)
		}
		told[p.ID], events[p.EventID] = p, p.ID
		if want, ok := shop.expected[p.ReservationID]; ok && p.outcome() != want {
			t.Errorf("payment %s: got %s, want %s", p.ID, p.outcome(), want)
		}
	}
	if len(events) != len(told) {
		t.Errorf("got %d event ids for %d payments", len(events), len(told))
	}
	report(t, "the tables", checkTables(readTables(t, s), told))
	report(t, "the balances", checkBalances(t, s, shop, list))
	report(t, "the topic", checkRecords(readTopic(t, s), events))
	repeated, wrong := checkMessages(s.slack.Messages(), events)
	report(t, "the messages", wrong)
	if repeated > killsOfEach {
		t.Errorf("%d messages are repeated, want at most one for each of %d kills", repeated, killsOfEach)
	}
	t.Logf("%d payments, %d messages posted but not yet marked when the notifier was killed, %d kills of it", len(told), repeated, killsOfEach)
}

func report(t *testing.T, where string, wrong []string) {
	t.Helper()
	if len(wrong) > 0 {
		t.Errorf("%s: %d findings:\n%s", where, len(wrong), strings.Join(wrong[:min(most, len(wrong))], "\n"))
	}
}

// row is one payment as the tables have it.
type row struct {
	ID      uuid.UUID
	Status  string
	History int64       // rows of it
	Events  []uuid.UUID // its outbox rows, found through history
	Strays  int64       // outbox rows of the whole table that no history names
}

func readTables(t *testing.T, s *stack) []row {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `
		SELECT p.id, p.status, count(h.id) AS history,
			coalesce(array_agg(o.id) FILTER (WHERE o.id IS NOT NULL), '{}') AS events,
			(SELECT count(*) FROM public.outbox AS s WHERE NOT EXISTS (SELECT FROM payment.history WHERE event_id = s.id)) AS strays
		FROM payment.payments AS p
		LEFT JOIN payment.history AS h ON h.payment_id = p.id
		LEFT JOIN public.outbox AS o ON o.id = h.event_id
		GROUP BY p.id`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// checkTables wants every payment to be in an answer, and the other way round,
// with one history row and one event.
func checkTables(rows []row, told map[uuid.UUID]paid) (wrong []string) {
	found := map[uuid.UUID]bool{}
	for _, r := range rows {
		found[r.ID] = true
		p, ok := told[r.ID]
		switch {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("payment %s is in no answer", r.ID))
		case r.Status != p.Status || r.History != 1 || len(r.Events) != 1 || r.Events[0] != p.EventID:
			wrong = append(wrong, fmt.Sprintf("payment %s: %s, %d history rows, events %v; the answer was %s, event %s", r.ID, r.Status, r.History, r.Events, p.Status, p.EventID))
		case r.Strays != 0:
			wrong = append(wrong, fmt.Sprintf("%d outbox rows belong to no payment", r.Strays))
		}
	}
	for id := range told {
		if !found[id] {
			wrong = append(wrong, fmt.Sprintf("payment %s is in an answer and in no table", id))
		}
	}
	return wrong
}

// checkBalances wants the price of every completed payment to be gone, once.
func checkBalances(t *testing.T, s *stack, shop *seats, list []paid) (wrong []string) {
	t.Helper()
	want := shop.balance
	for _, p := range list {
		if p.Status == "COMPLETED" {
			want -= price
		}
	}
	var got int64
	if err := s.pool.QueryRow(t.Context(), `SELECT sum(balance)::bigint FROM payment.users`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		wrong = append(wrong, fmt.Sprintf("got %d, want %d", got, want))
	}
	return wrong
}

// readTopic returns what read_committed consumers see, by partition.
func readTopic(t *testing.T, s *stack) map[int32][]*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends, err := kadm.NewClient(s.kafka.Client(t)).ListEndOffsets(ctx, s.topic)
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	consumer := s.kafka.Client(t, kgo.ConsumeTopics(s.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	records, next := map[int32][]*kgo.Record{}, map[int32]int64{}
	for {
		left := false
		ends.Each(func(end kadm.ListedOffset) { left = left || next[end.Partition] < end.Offset })
		if !left {
			return records
		}
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read the topic up to %v: %v", next, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next[r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				records[r.Partition] = append(records[r.Partition], r)
			}
		})
	}
}

// checkRecords wants one record for every event, in commit order.
func checkRecords(records map[int32][]*kgo.Record, events map[uuid.UUID]uuid.UUID) (wrong []string) {
	seen := map[uuid.UUID]int{}
	for partition, list := range records {
		last := ""
		for _, r := range list {
			id, err := uuid.Parse(header(r, "ce_id"))
			var payload struct {
				PaymentID uuid.UUID `json:"payment_id"`
			}
			if err == nil {
				err = json.Unmarshal(r.Value, &payload)
			}
			position := header(r, "cdc-relay-position")
			switch {
			case err != nil:
				wrong = append(wrong, fmt.Sprintf("partition %d offset %d: %v", partition, r.Offset, err))
			case events[id] != payload.PaymentID || payload.PaymentID == uuid.Nil:
				wrong = append(wrong, fmt.Sprintf("event %s is about payment %s, want %s", id, payload.PaymentID, events[id]))
			case position <= last:
				wrong = append(wrong, fmt.Sprintf("partition %d offset %d: position %q is not behind %q", partition, r.Offset, position, last))
			}
			seen[id]++
			last = position
		}
	}
	for id := range events {
		if seen[id] != 1 {
			wrong = append(wrong, fmt.Sprintf("event %s has %d records", id, seen[id]))
		}
	}
	return wrong
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

var eventInMessage = regexp.MustCompile("event `([0-9a-f-]{36})`")

// checkMessages wants one message for every event. One more is right if it says
// that it may be a repetition; those are counted.
func checkMessages(messages []fakeslack.Message, events map[uuid.UUID]uuid.UUID) (repeated int, wrong []string) {
	first := map[uuid.UUID]bool{}
	for _, m := range messages {
		match := eventInMessage.FindSubmatch(m.Body)
		if match == nil {
			wrong = append(wrong, "a message names no event: "+m.Text)
			continue
		}
		id := uuid.MustParse(string(match[1]))
		switch {
		case events[id] == uuid.Nil:
			wrong = append(wrong, fmt.Sprintf("a message is about the unknown event %s", id))
		case !first[id]:
			first[id] = true
		case strings.Contains(m.Text, "(possibly repeated)"):
			repeated++
		default:
			wrong = append(wrong, fmt.Sprintf("event %s is told again, and the message does not say so", id))
		}
	}
	for id := range events {
		if !first[id] {
			wrong = append(wrong, fmt.Sprintf("event %s has no message", id))
		}
	}
	return repeated, wrong
}

func insertLSN(t testing.TB, s *stack) cdc.LSN {
	t.Helper()
	var text string
	if err := s.pool.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}
