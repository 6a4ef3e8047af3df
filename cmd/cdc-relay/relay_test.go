package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/outbox"
)

// testRelay is one relay's surroundings: a database and topics of its own.
type testRelay struct {
	postgres *cdctest.Postgres
	kafka    *cdctest.Kafka
	database string
	name     string
	topic    string
	config   string // path of the file
	db       *pgx.Conn
}

func newTestRelay(t testing.TB, pg *cdctest.Postgres, kafka *cdctest.Kafka) *testRelay {
	t.Helper()
	r := &testRelay{postgres: pg, kafka: kafka, database: pg.Database(t), topic: kafka.Topic(t, 3)}
	r.name = strings.ToLower(strings.NewReplacer(".", "-", "/", "-").Replace(r.topic))
	if len(r.name) > 40 {
		r.name = strings.Trim(r.name[len(r.name)-40:], "-_")
	}
	r.config = filepath.Join(t.TempDir(), "relay.yaml")
	r.writeConfig(t, pg.DSN(r.database, "postgres"), "")
	r.db = pg.Connect(t, r.database)
	return r
}

// writeConfig replaces the configuration file.
func (r *testRelay) writeConfig(t testing.TB, dsn, more string) {
	t.Helper()
	text := fmt.Sprintf(`relay: %s
postgres: {dsn: %q}
kafka: {brokers: [%s], replication: 1, partitions: 3}
routing: {topic: %s, allowed_topics: [%s]}
admin: {listen: "127.0.0.1:0"}
%s`, r.name, dsn, strings.Join(r.kafka.Brokers(), ", "), r.topic, r.topic, more)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *testRelay) slot() string { return derive("<relay_>_outbox", r.name) }

func (r *testRelay) positionTopic() string { return "cdc-relay.position." + r.name }

// init makes everything, the table included. What is read without fencing shows
// the last record from then on.
func (r *testRelay) init(t testing.TB) {
	t.Helper()
	execute(t, nil, "init", "--config", r.config, "--apply", "--with-table").wantCode(t, exitFine)
	r.kafka.AwaitDecided(t, r.positionTopic())
}

// insert commits n rows in one transaction and returns their ids.
func (r *testRelay) insert(t testing.TB, n int) []string {
	t.Helper()
	ids := make([]string, n)
	err := pgx.BeginFunc(t.Context(), r.db, func(tx pgx.Tx) error {
		for i := range ids {
			event := outbox.Event{AggregateType: "payment", AggregateID: fmt.Sprint("key-", i%5), Type: "payment.completed.v1", Payload: []byte(`{"n":1}`)}
			id, err := outbox.Insert(t.Context(), tx, event)
			if err != nil {
				return err
			}
			ids[i] = id.String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// published reads n records and returns their event ids.
func (r *testRelay) published(t testing.TB, n int) map[string]int {
	t.Helper()
	client := r.kafka.Client(t, kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := map[string]int{}
	for count := 0; count < n; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%d of %d records read: %v", count, n, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			count++
			for _, h := range record.Headers {
				if h.Key == "ce_id" {
					seen[string(h.Value)]++
				}
			}
		})
	}
	return seen
}

// wantPublished fails unless exactly these ids were published, each once.
func (r *testRelay) wantPublished(t testing.TB, ids []string) {
	t.Helper()
	seen := r.published(t, len(ids))
	for _, id := range ids {
		if seen[id] != 1 {
			t.Errorf("event %s was seen %d times", id, seen[id])
		}
	}
	if len(seen) != len(ids) {
		t.Errorf("%d events seen, want %d", len(seen), len(ids))
	}
}

// awaitFreeSlot waits until nobody holds the slot. Who ends waits for the server
// less than a second; the walsender may end, and read the last status, later.
func (r *testRelay) awaitFreeSlot(t testing.TB, slot string) {
	t.Helper()
	eventually(t, "nobody holds slot "+slot, func() bool {
		var held bool
		if err := r.db.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)", slot).Scan(&held); err != nil {
			t.Fatal(err)
		}
		return !held
	})
}

// confirmed is the slot's confirmed LSN when nobody holds it any more; 0 when
// there is no slot.
func (r *testRelay) confirmed(t testing.TB) cdc.LSN {
	t.Helper()
	r.awaitFreeSlot(t, r.slot())
	var text string
	err := r.db.QueryRow(t.Context(), "SELECT coalesce((SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1), '0/0')", r.slot()).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

func (r *testRelay) exec(t testing.TB, statement string) {
	t.Helper()
	if _, err := r.db.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestInitTwiceThenRunOnce(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	first := execute(t, nil, "init", "--config", r.config, "--apply", "--with-table")
	first.wantCode(t, exitFine)
	r.kafka.AwaitDecided(t, r.positionTopic())
	wantIn(t, first.stdout.String(),
		"created        position topic cdc-relay.position."+r.name, "already there  topic "+r.topic, "created        table public.outbox",
		"created        publication "+r.slot(), "created        slot "+r.slot(), "created        position record of "+r.name)
	confirmed := r.confirmed(t)
	second := execute(t, nil, "init", "--config", r.config, "--apply", "--with-table")
	second.wantCode(t, exitFine)
	if strings.Contains(second.stdout.String(), "created") || strings.Count(second.stdout.String(), "already there") != 6 {
		t.Errorf("the second init says:\n%s", second.stdout.String())
	}
	if got := r.confirmed(t); got != confirmed {
		t.Errorf("the second init moved the slot from %s to %s", confirmed, got)
	}
	ids := append(r.insert(t, 1), r.insert(t, 20)...)
	execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
	r.wantPublished(t, ids)
	if got := r.confirmed(t); got <= confirmed {
		t.Errorf("the slot stands at %s, before at %s", got, confirmed)
	}
	more := r.insert(t, 3)
	execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
	r.wantPublished(t, append(ids, more...))
}

// replaceInFile changes a text that the file has.
func replaceInFile(t testing.TB, path, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q: %v", path, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o600); err != nil {
		t.Fatal(err)
	}
}
