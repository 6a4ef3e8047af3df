package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func (r *testRelay) dropSlot(t *testing.T) {
	t.Helper()
	r.awaitFreeSlot(t, r.slot())
	r.exec(t, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", r.slot()))
}

// Where retention has removed records, nobody can tell what was published.
func TestResyncAndRetention(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	old := r.insert(t, 6)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.kafka.AwaitMarkers(t, r.topic)
	admin := kadm.NewClient(r.kafka.Client(t))
	ends, err := admin.ListEndOffsets(t.Context(), r.topic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	lastOld, err := audit.ParseID([]byte(old[len(old)-1]))
	if err != nil {
		t.Fatal(err)
	}
	since := lastOld.Time().Add(2 * time.Millisecond)
	eventually(t, "the clock has gone on", func() bool { return time.Now().After(since) })
	r.dropSlot(t)
	fresh := r.insert(t, 6)

	refused := execute(t, nil, "resync", "--confirm", "--config", r.config)
	refused.wantCode(t, exitHalt)
	wantIn(t, refused.stderr.String(), "12 rows are older than what retention has left", "--assume-published-before", "--assume-complete")
	halted := execute(t, nil, "run", "--config", r.config)
	halted.wantCode(t, exitHalt)
	wantIn(t, halted.stderr.String(), "resync-unfinished", "fix: "+cdc.FixResync)
	backfill := execute(t, nil, "backfill", "--config", r.config, "--since", "1h", "--timeout", "0s")
	backfill.wantCode(t, exitFailure)
	wantIn(t, backfill.stderr.String(), "a resync has begun")
	assumed := []string{"--assume-published-before", since.Format(time.RFC3339Nano), "--assume-complete"}
	if shown := r.command(t, exitFine, append([]string{"resync"}, assumed...)...); shown.Done || shown.Reason != cdc.HaltResyncUnfinished || !strings.Contains(strings.Join(shown.Does, "\n"), "publishes 6 rows") {
		t.Errorf("it would do %+v", shown)
	}
	if done := r.command(t, exitFine, append([]string{"resync", "--confirm"}, assumed...)...); !done.Done {
		t.Errorf("it did %+v", done)
	}
	r.wantResynced(t, fresh)
	more := r.insert(t, 1)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.wantPublished(t, append(fresh, more...))
}

// wantResynced wants exactly these records, marked and without a position.
func (r *testRelay) wantResynced(t *testing.T, ids []string) {
	t.Helper()
	r.wantPublished(t, ids)
	for _, record := range r.records(t, r.topic, len(ids)) {
		headers := map[string]string{}
		for _, h := range record.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[audit.HeaderResync] == "" || headers["cdc-relay-position"] != "" || headers["ce_sequence"] != "" || time.Since(record.Timestamp) > time.Minute {
			t.Errorf("a resynced record of %s has headers %v", record.Timestamp, headers)
		}
	}
}

// Rows come in the order of their creation, not of their ids.
func TestResyncOrder(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.dropSlot(t)
	for n, id := range []string{"00000000-0000-4000-8000-00000000000c", "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"} {
		r.exec(t, fmt.Sprintf(`INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload, created_at) VALUES ('%s', 'payment', 'key', 't', '{"n": %d}', now() + interval '%d ms')`, id, n, n))
	}
	if done := r.command(t, exitFine, "resync", "--confirm"); !done.Done {
		t.Fatalf("it did %+v", done)
	}
	for n, record := range r.records(t, r.topic, 3) {
		if want := fmt.Sprintf(`{"n": %d}`, n); string(record.Value) != want {
			t.Errorf("record %d has %s, want %s", n, record.Value, want)
		}
	}
}

// Rows that cannot become a record are parked, or left on command.
func TestResyncAndBadRows(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		more string // configuration
		flag string
	}{
		{name: "halt", flag: "--leave-unroutable"},
		{name: "park", more: "on_bad_row: park"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newBadRowRelay(t)
			r.routeByType(t, test.more)
			replaceInFile(t, r.config, fmt.Sprintf("%q, ", r.topic+"-compacted"), "") // which nobody can compare
			r.dropSlot(t)
			r.insertValues(t, `'`+r.topic+`', 'good', '1', '{}'`)
			r.insertValues(t, `'elsewhere', 'bad', '2', '{}'`)
			args := []string{"resync", "--confirm"}
			if test.flag != "" {
				refused := execute(t, nil, append(args, "--config", r.config)...)
				refused.wantCode(t, exitHalt)
				wantIn(t, refused.stderr.String(), "1 rows cannot become a record", test.flag)
				args = append(args, test.flag)
			} else {
				r.createTopic(t, "cdc-relay.parked."+r.name, nil)
			}
			if done := r.command(t, exitFine, args...); !done.Done {
				t.Fatalf("it did %+v", done)
			}
			wantKeys(t, r.records(t, r.topic, 1), "good")
			execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
			if test.flag == "" {
				parked := r.records(t, "cdc-relay.parked."+r.name, 1)[0]
				if header := findHeader(parked, "cdc-relay-column-aggregateid"); header != "bad" {
					t.Errorf("parked is the row of %q", header)
				}
			}
		})
	}
}

func findHeader(record *kgo.Record, key string) string {
	for _, header := range record.Headers {
		if header.Key == key {
			return string(header.Value)
		}
	}
	return ""
}
