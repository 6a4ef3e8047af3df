package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// badRow is one way in which a committed row cannot become a record.
type badRow struct {
	name string
	// values of aggregatetype, aggregateid, payload and headers, as SQL.
	values string
	want   string // in the message, and in the parked record's reason
	// parkedValue is the payload that the parked record carries; nil: NULL.
	parkedValue []byte
}

func badRows(r *testRelay) []badRow {
	return []badRow{
		{name: "a column of the topic is NULL", values: `NULL, 'k', '{}', '{}'`, want: `NULL in column "aggregatetype"`, parkedValue: []byte("{}")},
		{name: "a topic that is not allowed", values: `'elsewhere', 'k', '{}', '{}'`, want: `routes to topic "elsewhere"`, parkedValue: []byte("{}")},
		{name: "a topic name that Kafka refuses", values: `'any a b', 'k', '{}', '{}'`, want: `"any a b"`, parkedValue: []byte("{}")},
		{name: "a topic name of 300 bytes", values: `'any' || repeat('x', 297), 'k', '{}', '{}'`, want: "anyx", parkedValue: []byte("{}")},
		{name: "the position topic", values: `'cdc-relay.position.` + r.name + `', 'k', '{}', '{}'`, want: "the relay's own topic", parkedValue: []byte("{}")},
		{name: "the parked topic", values: `'cdc-relay.parked.` + r.name + `', 'k', '{}', '{}'`, want: "the relay's own topic", parkedValue: []byte("{}")},
		{name: "larger than its topic takes", values: `'` + r.topic + `-small', 'k', repeat('x', 20000), '{}'`, want: "takes 10000", parkedValue: bytes.Repeat([]byte("x"), 20000)},
		{name: "a null key where the topic is compacted", values: `'` + r.topic + `-compacted', NULL, '{}', '{}'`, want: "is compacted", parkedValue: []byte("{}")},
		{name: "headers that are no object", values: `'` + r.topic + `', 'k', '{}', '[1]'`, want: `column "headers"`, parkedValue: []byte("{}")},
		{name: "a header that is no string", values: `'` + r.topic + `', 'k', '{}', '{"a": {"b": 1}}'`, want: `column "headers"`, parkedValue: []byte("{}")},
		{name: "10,000 headers", values: `'` + r.topic + `', 'k', '{}', (SELECT jsonb_object_agg('h' || n, 'v') FROM generate_series(1, 10000) n)`, want: `column "headers"`, parkedValue: []byte("{}")},
		{name: "a header in the relay's name", values: `'` + r.topic + `', 'k', NULL, '{"cdc-relay-position": "1"}'`, want: `cdc-relay-position`},
	}
}

// newBadRowRelay is a relay whose table takes what an outbox should refuse.
func newBadRowRelay(t *testing.T) *testRelay {
	t.Helper()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.routeByType(t, "")
	r.createTopic(t, r.topic+"-small", map[string]*string{"max.message.bytes": new("10000")})
	r.createTopic(t, r.topic+"-compacted", map[string]*string{"cleanup.policy": new("compact")})
	r.init(t)
	r.exec(t, `ALTER TABLE public.outbox ALTER aggregatetype DROP NOT NULL, ALTER aggregateid DROP NOT NULL, ALTER payload TYPE text, DROP CONSTRAINT outbox_headers_object`)
	return r
}

// createTopic makes a topic of one partition.
func (r *testRelay) createTopic(t testing.TB, topic string, config map[string]*string) {
	t.Helper()
	if _, err := r.kafka.Admin(t).CreateTopic(t.Context(), 1, 1, config, topic); err != nil {
		t.Fatal(err)
	}
	r.awaitPartitions(t, topic, 1)
}

// awaitPartitions waits until all partitions have leaders: a real cluster answers
// whoever makes them before that.
func (r *testRelay) awaitPartitions(t testing.TB, topic string, n int) {
	t.Helper()
	admin := r.kafka.Admin(t)
	eventually(t, fmt.Sprintf("topic %s has %d partitions", topic, n), func() bool {
		topics, err := admin.ListTopics(t.Context(), topic)
		led := 0
		for _, partition := range topics[topic].Partitions {
			if partition.Err == nil && partition.Leader >= 0 {
				led++
			}
		}
		return err == nil && led == n
	})
}

// routeByType lets the column aggregatetype name the topic itself.
func (r *testRelay) routeByType(t *testing.T, more string) {
	t.Helper()
	r.writeConfig(t, r.postgres.DSN(r.database, "postgres"), more)
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	routing := fmt.Sprintf("routing: {topic: %q, allowed_topics: [%q, %q, %q, %q]}", "{aggregatetype}", r.topic, r.topic+"-small", r.topic+"-compacted", "any*")
	replaced := regexp.MustCompile(`(?m)^routing: .*$`).ReplaceAll(text, []byte(routing))
	if err := os.WriteFile(r.config, replaced, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *testRelay) insertValues(t *testing.T, values string) {
	t.Helper()
	r.exec(t, `INSERT INTO public.outbox (type, aggregatetype, aggregateid, payload, headers) VALUES ('t', `+values+`)`)
}

// TestBadRows puts a bad row between two good ones. At first the relay halts:
// the row before it is published, the slot stays before the bad one. Then it is
// told to park, and both the parked row and the one behind it arrive.
func TestBadRows(t *testing.T) {
	t.Parallel()
	for i := range badRows(&testRelay{}) {
		t.Run(badRows(&testRelay{})[i].name, func(t *testing.T) {
			t.Parallel()
			r := newBadRowRelay(t)
			bad := badRows(r)[i]
			r.insertValues(t, `'`+r.topic+`', 'before', '1', '{}'`)
			before := r.insertLSN(t) // the bad row stands behind it
			r.insertValues(t, bad.values)
			r.insertValues(t, `'`+r.topic+`', 'behind', '2', '{}'`)

			run := execute(t, nil, "run", "--config", r.config)
			run.wantCode(t, exitHalt)
			wantIn(t, run.stderr.String(), "bad-row", bad.want, "fix: ")
			if got := r.confirmed(t); got > before {
				t.Errorf("the halt moved the slot to %s, the bad row stands behind %s", got, before)
			}
			wantKeys(t, r.records(t, r.topic, 1), "before")
			execute(t, nil, "run", "--config", r.config).wantCode(t, exitHalt)
			if got := r.confirmed(t); got > before {
				t.Errorf("the second halt moved the slot to %s, the bad row stands behind %s", got, before)
			}

			r.routeByType(t, "on_bad_row: park")
			execute(t, nil, "init", "--apply", "--config", r.config).wantCode(t, exitFine) // makes the parked topic
			run = execute(t, nil, "run", "--once", "--config", r.config)
			run.wantCode(t, exitFine)
			wantIn(t, strings.ReplaceAll(run.stderr.String(), `\"`, `"`), "row parked", bad.want)
			wantKeys(t, r.records(t, r.topic, 2), "before", "behind")
			r.wantParked(t, bad)
			if got := r.confirmed(t); got <= before {
				t.Errorf("the slot stands at %s, the parked row behind %s", got, before)
			}
		})
	}
}

// wantParked wants exactly one parked record, which tells everything of its row.
func (r *testRelay) wantParked(t *testing.T, bad badRow) {
	t.Helper()
	record := r.records(t, "cdc-relay.parked."+r.name, 1)[0]
	headers := map[string]string{}
	for _, h := range record.Headers {
		headers[h.Key] = string(h.Value)
	}
	if !strings.Contains(headers[routing.HeaderParkedReason], bad.want) {
		t.Errorf("reason %q, want %q in it", headers[routing.HeaderParkedReason], bad.want)
	}
	if !bytes.Equal(record.Value, bad.parkedValue) {
		t.Errorf("value %.80q, want %.80q", record.Value, bad.parkedValue)
	}
	if id := headers[routing.HeaderParkedColumnPrefix+"id"]; id == "" || id != string(record.Key) {
		t.Errorf("key %q, id column %q", record.Key, id)
	}
	if headers[routing.HeaderParkedTable] != "public.outbox" || headers[routing.HeaderPosition] == "" || headers[routing.HeaderParkedXID] == "" {
		t.Errorf("headers %v", headers)
	}
}

// records reads everything that read_committed consumers see, which has to be n
// records.
func (r *testRelay) records(t *testing.T, topic string, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := r.kafka.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%d of %d records of %s read: %v", len(records), n, topic, err)
		}
		records = append(records, fetches.Records()...)
	}
	if len(records) != n {
		t.Fatalf("%d records in %s, want %d", len(records), topic, n)
	}
	return records
}

// wantKeys compares the keys, whatever partitions they are in.
func wantKeys(t *testing.T, records []*kgo.Record, keys ...string) {
	t.Helper()
	got := map[string]int{}
	for _, record := range records {
		got[string(record.Key)]++
	}
	for _, key := range keys {
		if got[key] != 1 {
			t.Errorf("key %q was seen %d times", key, got[key])
		}
	}
}

// TestBytesPassThrough inserts what is strange and yet no bad row: the bytes
// arrive as they are.
func TestBytesPassThrough(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		column   string // type of the payload column
		payload  string // SQL
		want     []byte
		encoding string
	}{
		{name: "text that is no JSON", column: "text", payload: `'{"a": '`, want: []byte(`{"a": `)},
		{name: "nothing at all", column: "text", payload: `''`, want: []byte{}},
		{name: "invalid UTF-8", column: "text", payload: `E'a\xff\xfeb'`, want: []byte("a\xff\xfeb"), encoding: "SQL_ASCII"},
		{name: "NUL", column: "bytea", payload: `'\x610062'`, want: []byte("a\x00b")},
		{name: "a type of pg_catalog that nothing knows here", column: "point", payload: `'(1,2)'`, want: []byte("(1,2)")},
		{name: "a type that a user made", column: "mood", payload: `'glad'`, want: []byte("glad")},
		{name: "a tombstone", column: "text", payload: `NULL`, want: nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
			if test.encoding != "" {
				r.reEncode(t, test.encoding)
			}
			r.init(t)
			r.exec(t, `CREATE TYPE mood AS ENUM ('glad')`)
			r.exec(t, `ALTER TABLE public.outbox ALTER payload TYPE `+test.column+` USING NULL`)
			r.exec(t, `INSERT INTO public.outbox (type, aggregatetype, aggregateid, payload) VALUES ('t', 'a', 'k', `+test.payload+`)`)
			execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
			got := r.records(t, r.topic, 1)[0].Value
			if !bytes.Equal(got, test.want) || (got == nil) != (test.want == nil) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// reEncode gives the relay a database of another encoding.
func (r *testRelay) reEncode(t *testing.T, encoding string) {
	t.Helper()
	name := r.database + "_" + strings.ToLower(encoding)
	r.exec(t, `CREATE DATABASE "`+name+`" TEMPLATE template0 ENCODING '`+encoding+`' LC_COLLATE 'C' LC_CTYPE 'C'`)
	r.database = name
	r.db = r.postgres.Connect(t, name)
	r.writeConfig(t, r.postgres.DSN(name, "postgres"), "")
}
