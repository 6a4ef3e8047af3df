package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
	"github.com/cdc-relay/cdc-relay/cdc/outbox"
)

// TestScaleOutByRowFilters divides one outbox between two relays, by a row filter
// on the hash of the aggregate id, and kills both in turn under load. Together
// they publish each event once, and the events of a key in order.
func TestScaleOutByRowFilters(t *testing.T) {
	t.Parallel()
	first := environment(t, relaytest.Build(t), "")
	conn := first.Postgres.Connect(t, first.Database)
	filter := func(remainder int) string {
		return fmt.Sprintf("public.outbox WHERE ((hashtext(aggregateid) & 1) = %d)", remainder)
	}
	second := first.Relay + "_second"
	if _, err := conn.Exec(t.Context(), `ALTER PUBLICATION `+first.Publication+` SET TABLE `+filter(0)+`;
		CREATE PUBLICATION `+second+` FOR TABLE `+filter(1)+` WITH (publish = 'insert', publish_via_partition_root = true)`); err != nil {
		t.Fatal(err)
	}
	if p := command(t, first, nil, "adopt", "--stream", "--confirm"); p.ExitCode() != 0 {
		t.Fatalf("adopt: exit code %d\n%s%s", p.ExitCode(), p.Stdout(), p.Stderr())
	}
	environments := []*relaytest.Environment{first, first.Beside(t, second)}
	var relays []*relaytest.Supervisor
	for _, e := range environments {
		relays = append(relays, relaytest.Supervise(t, e.Options()))
	}

	const writers, transactions = 4, 500
	const written = writers * transactions
	var load errgroup.Group
	for writer := range writers {
		rng := rand.New(rand.NewPCG(cdctest.Seed(t), uint64(writer)))
		session := first.Postgres.Connect(t, first.Database)
		load.Go(func() error {
			for n := range transactions {
				event := outbox.Event{
					AggregateType: first.Topic, AggregateID: fmt.Sprintf("key-%d-%d", writer, rng.IntN(20)), Type: "tested",
					Payload: fmt.Appendf(nil, `{"n": %d}`, n),
				}
				err := pgx.BeginFunc(t.Context(), session, func(tx pgx.Tx) error {
					_, err := outbox.Insert(t.Context(), tx, event)
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for life := range 3 {
		for _, relay := range relays {
			waitLife(t, relay, life+1)
			cdctest.Pause(t, 200*time.Millisecond)
			if !relay.Kill() {
				t.Fatalf("the relay ended by itself: %v", relay.Err())
			}
		}
	}
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}

	var end string
	if err := conn.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		t.Fatal(err)
	}
	for i, relay := range relays {
		waitLife(t, relay, 4)
		awaitPublished(t, environments[i], end)
	}
	requireAllThere(t, first, written)
	for _, relay := range relays {
		relay.Stop(t)
	}
	requireDivided(t, first, written)
}

// awaitPublished asks a relay that may only just have started.
func awaitPublished(t *testing.T, e *relaytest.Environment, lsn string) {
	t.Helper()
	for began := time.Now(); ; cdctest.Pause(t, 100*time.Millisecond) {
		p := command(t, e, nil, "wait", "--lsn", lsn, "--timeout", "1m")
		if p.ExitCode() == 0 {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("wait: exit code %d\n%s%s", p.ExitCode(), p.Stdout(), p.Stderr())
		}
	}
}

// requireAllThere audits. Two relays write into one partition, so that positions
// go back there; every other difference is one.
func requireAllThere(t *testing.T, e *relaytest.Environment, want int64) {
	t.Helper()
	p := command(t, e, nil, "audit", "--timeout", "1m", "-o", "json")
	var report audit.Report
	if err := json.Unmarshal([]byte(p.Stdout()), &report); err != nil {
		t.Fatalf("audit: exit code %d, %v\n%s%s", p.ExitCode(), err, p.Stdout(), p.Stderr())
	}
	if report.Rows != want || report.Records != want || report.Found != want || !report.Proved ||
		report.Duplicate+report.OutOfOrder+report.WrongPlace+report.Changed+report.Phantom != 0 {
		t.Errorf("audit of %d rows: exit code %d\n%s%s", want, p.ExitCode(), p.Stdout(), p.Stderr())
	}
}

// requireDivided demands that the two halves of the keys were published, each by
// a relay of its own, so that no producer id is in both, and each key in the
// order in which its writer committed.
func requireDivided(t *testing.T, e *relaytest.Environment, want int) {
	t.Helper()
	rows, err := e.Postgres.Connect(t, e.Database).Query(t.Context(), `SELECT DISTINCT aggregateid, hashtext(aggregateid) & 1 FROM public.outbox`)
	if err != nil {
		t.Fatal(err)
	}
	halves, key, half := map[string]int{}, "", 0
	if _, err := pgx.ForEachRow(rows, []any{&key, &half}, func() error { halves[key] = half; return nil }); err != nil {
		t.Fatal(err)
	}
	client := e.Kafka.Client(t, kgo.ConsumeTopics(e.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	producers := [2]map[int64]bool{{}, {}}
	newest := map[string]int{}
	for read := 0; read < want; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", read, want, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			read++
			var payload struct{ N int }
			last, seen := newest[string(record.Key)]
			if err := json.Unmarshal(record.Value, &payload); err != nil || seen && payload.N <= last {
				t.Errorf("key %s has %s behind %d, %v", record.Key, record.Value, last, err)
			}
			newest[string(record.Key)] = payload.N
			producers[halves[string(record.Key)]][record.ProducerID] = true
		})
	}
	for id := range producers[0] {
		if producers[1][id] {
			t.Errorf("producer id %d published keys of both halves", id)
		}
	}
	if len(producers[0]) == 0 || len(producers[1]) == 0 {
		t.Errorf("%d and %d producer ids published the halves", len(producers[0]), len(producers[1]))
	}
}
