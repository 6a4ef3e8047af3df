package routing

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	testID       = "0198f0a0-7c11-7cc4-8f2e-1a2b3c4d5e6f"
	testPosition = "0001-00000000016b3600-00000003"
)

var testCommitTime = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

// column is one column of a test row: name, type, value; nil is NULL.
type column struct {
	name    string
	typeOID uint32
	value   any
}

// newRow makes a row at the test position out of its columns.
func newRow(columns ...column) *cdc.Row {
	relation := &cdc.Relation{OID: 7, Schema: "public", Name: "outbox"}
	row := &cdc.Row{
		Position:   cdc.Position{Generation: 1, Timeline: 1, CommitLSN: 0x16B3600, Serial: 3},
		XID:        812,
		CommitTime: testCommitTime,
		Relation:   relation,
	}
	for _, c := range columns {
		relation.Columns = append(relation.Columns, cdc.Column{Name: c.name, TypeOID: c.typeOID, TypeModifier: -1})
		var value []byte
		if text, ok := c.value.(string); ok {
			value = []byte(text)
		}
		row.Values = append(row.Values, value)
		if c.name == roleID {
			row.EventID = value
		}
	}
	return row
}

// paymentRow is a row of the default table with some columns replaced, added
// or, with typeOID 0, removed.
func paymentRow(changes ...column) *cdc.Row {
	columns := []column{
		{roleID, oidUUID, testID},
		{roleAggregateType, oidText, "payment"},
		{roleAggregateID, oidText, "r-17"},
		{roleType, oidText, "payment.completed.v1"},
		{rolePayload, oidJSONB, `{"a": 1}`},
		{roleHeaders, oidJSONB, `{}`},
		{roleCreatedAt, oidTimestamptz, "2026-01-02 03:04:05.5+00"},
	}
	for _, change := range changes {
		replaced := false
		for i := range columns {
			if columns[i].name == change.name {
				columns[i], replaced = change, true
			}
		}
		if !replaced {
			columns = append(columns, change)
		}
	}
	var kept []column
	for _, c := range columns {
		if c.typeOID != 0 {
			kept = append(kept, c)
		}
	}
	return newRow(kept...)
}

func header(key, value string) cdc.Header { return cdc.Header{Key: key, Value: []byte(value)} }

func mustNew(t testing.TB, cfg Config) *Router {
	t.Helper()
	if cfg.AllowedTopics == nil {
		cfg.AllowedTopics = []string{"*"}
	}
	if cfg.Source == "" {
		cfg.Source = "/payments"
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ceHeaders(contentType string, more ...cdc.Header) []cdc.Header {
	headers := []cdc.Header{
		header("ce_specversion", "1.0"),
		header("ce_id", testID),
		header("ce_source", "/payments"),
		header("ce_type", "payment.completed.v1"),
		header("ce_subject", "r-17"),
		header("ce_time", "2026-01-02T03:04:05.5Z"),
		header("ce_sequence", testPosition),
	}
	if contentType != "" {
		headers = append(headers, header("content-type", contentType))
	}
	headers = append(headers, header("cdc-relay-position", testPosition), header("cdc-relay-commit-time", "2026-01-02T03:04:05.678901Z"))
	return append(headers, more...)
}

func without(headers []cdc.Header, key string) (kept []cdc.Header) {
	for _, h := range headers {
		if h.Key != key {
			kept = append(kept, h)
		}
	}
	return kept
}

func replaced(headers []cdc.Header, key, value string) []cdc.Header {
	for i := range headers {
		if headers[i].Key == key {
			headers[i].Value = []byte(value)
		}
	}
	return headers
}

// paymentRecord is what paymentRow becomes.
func paymentRecord(value string, headers []cdc.Header) cdc.Record {
	return cdc.Record{
		Topic: "payment-event", Placement: []byte("r-17"), Key: []byte("r-17"), Value: []byte(value),
		Headers: headers, Timestamp: testCommitTime,
		Position: cdc.Position{Generation: 1, Timeline: 1, CommitLSN: 0x16B3600, Serial: 3},
	}
}

func tombstone(headers []cdc.Header) cdc.Record {
	record := paymentRecord("", headers)
	record.Value = nil
	return record
}

func TestRoute(t *testing.T) {
	keyed := func(record cdc.Record, placement string, key []byte) cdc.Record {
		record.Placement, record.Key = []byte(placement), key
		return record
	}
	for _, test := range []struct {
		name string
		cfg  Config
		row  *cdc.Row
		want cdc.Record
	}{
		{
			"cloudevents by default",
			Config{}, paymentRow(), paymentRecord(`{"a": 1}`, ceHeaders("application/json")),
		},
		{
			"cloudevents takes the commit time where created_at is NULL",
			Config{}, paymentRow(column{roleCreatedAt, oidTimestamptz, nil}),
			paymentRecord(`{"a": 1}`, replaced(ceHeaders("application/json"), "ce_time", "2026-01-02T03:04:05.678901Z")),
		},
		{
			"cloudevents from the table with five columns",
			Config{}, paymentRow(column{roleHeaders, 0, nil}, column{roleCreatedAt, 0, nil}),
			paymentRecord(`{"a": 1}`, replaced(ceHeaders("application/json"), "ce_time", "2026-01-02T03:04:05.678901Z")),
		},
		{
			"cloudevents with a timestamp without time zone, which is UTC",
			Config{}, paymentRow(column{roleCreatedAt, oidTimestamp, "2026-01-02 03:04:05"}),
			paymentRecord(`{"a": 1}`, replaced(ceHeaders("application/json"), "ce_time", "2026-01-02T03:04:05Z")),
		},
		{
			"cloudevents with headers of the row",
			Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"ce_tenant": "t1", "traceparent": "00-4bf9-00f0-01"}`}),
			paymentRecord(`{"a": 1}`, ceHeaders("application/json", header("ce_tenant", "t1"), header("traceparent", "00-4bf9-00f0-01"))),
		},
		{
			"the row's content type is better than a guess",
			Config{}, paymentRow(column{rolePayload, oidBytea, `\x00ff`}, column{roleHeaders, oidJSONB, `{"a": "b", "content-type": "application/avro"}`}),
			paymentRecord("\x00\xff", ceHeaders("application/avro", header("a", "b"))),
		},
		{
			"bytea is raw bytes",
			Config{}, paymentRow(column{rolePayload, oidBytea, `\x7b7d00`}), paymentRecord("{}\x00", ceHeaders("application/octet-stream")),
		},
		{
			"an empty bytea is an empty value, not a tombstone",
			Config{}, paymentRow(column{rolePayload, oidBytea, `\x`}), paymentRecord("", ceHeaders("application/octet-stream")),
		},
		{
			"text passes as it is",
			Config{}, paymentRow(column{rolePayload, oidText, " <é> "}), paymentRecord(" <é> ", ceHeaders("text/plain; charset=utf-8")),
		},
		{
			"NULL payload is a tombstone without content type",
			Config{}, paymentRow(column{rolePayload, oidJSONB, nil}), tombstone(ceHeaders("")),
		},
		{
			"JSON null is a value",
			Config{}, paymentRow(column{rolePayload, oidJSONB, "null"}), paymentRecord("null", ceHeaders("application/json")),
		},
		{
			"the key may be any column",
			Config{Key: "{type}"}, paymentRow(),
			keyed(paymentRecord(`{"a": 1}`, ceHeaders("application/json")), "payment.completed.v1", []byte("payment.completed.v1")),
		},
		{
			"NULL key is placed by the aggregate id",
			Config{Key: "{shard}"}, paymentRow(column{"shard", oidText, nil}),
			keyed(paymentRecord(`{"a": 1}`, ceHeaders("application/json")), "r-17", nil),
		},
		{
			"NULL aggregate id is placed by the event id and has no subject",
			Config{}, paymentRow(column{roleAggregateID, oidText, nil}),
			keyed(paymentRecord(`{"a": 1}`, without(ceHeaders("application/json"), "ce_subject")), testID, nil),
		},
		{
			"an empty key is a key",
			Config{Key: "{shard}"}, paymentRow(column{"shard", oidText, ""}),
			keyed(paymentRecord(`{"a": 1}`, ceHeaders("application/json")), "", []byte{}),
		},
		{
			"a key of several parts",
			Config{Key: "{{{aggregatetype}/{aggregateid}}}"}, paymentRow(),
			keyed(paymentRecord(`{"a": 1}`, ceHeaders("application/json")), "{payment/r-17}", []byte("{payment/r-17}")),
		},
		{
			"a bytea key is its bytes",
			Config{Key: "{shard}"}, paymentRow(column{"shard", oidBytea, `\x0102`}),
			keyed(paymentRecord(`{"a": 1}`, ceHeaders("application/json")), "\x01\x02", []byte{1, 2}),
		},
		{
			"raw",
			Config{Format: FormatRaw}, paymentRow(column{roleHeaders, oidJSONB, `{"content-type": "x", "ce_id": "y"}`}),
			paymentRecord(`{"a": 1}`, []cdc.Header{
				header("id", testID), header("type", "payment.completed.v1"), header("cdc-relay-position", testPosition),
				header("cdc-relay-commit-time", "2026-01-02T03:04:05.678901Z"), header("content-type", "x"), header("ce_id", "y"),
			}),
		},
		{
			"raw without a type column",
			Config{Format: FormatRaw}, paymentRow(column{roleType, 0, nil}, column{rolePayload, oidJSONB, nil}),
			tombstone([]cdc.Header{
				header("id", testID), header("cdc-relay-position", testPosition), header("cdc-relay-commit-time", "2026-01-02T03:04:05.678901Z"),
			}),
		},
		{
			"structured",
			Config{Format: FormatCloudEventsStructured}, paymentRow(column{roleHeaders, oidJSONB, `{"ce_tenant": "a\"b\u0001", "traceparent": "00-1"}`}),
			paymentRecord(`{"specversion":"1.0","id":"`+testID+`","source":"/payments","type":"payment.completed.v1","subject":"r-17",`+
				`"time":"2026-01-02T03:04:05.5Z","sequence":"`+testPosition+`","datacontenttype":"application/json","tenant":"a\"b\u0001","data":{"a": 1}}`,
				ceHeaders("application/cloudevents+json; charset=utf-8", header("ce_tenant", "a\"b\x01"), header("traceparent", "00-1"))),
		},
		{
			"structured with bytes",
			Config{Format: FormatCloudEventsStructured}, paymentRow(column{rolePayload, oidBytea, `\x00ff`}),
			paymentRecord(`{"specversion":"1.0","id":"`+testID+`","source":"/payments","type":"payment.completed.v1","subject":"r-17",`+
				`"time":"2026-01-02T03:04:05.5Z","sequence":"`+testPosition+`","datacontenttype":"application/octet-stream","data_base64":"AP8="}`,
				ceHeaders("application/cloudevents+json; charset=utf-8")),
		},
		{
			"structured with text",
			Config{Format: FormatCloudEventsStructured}, paymentRow(column{rolePayload, oidText, "a\n<é>"}),
			paymentRecord(`{"specversion":"1.0","id":"`+testID+`","source":"/payments","type":"payment.completed.v1","subject":"r-17",`+
				`"time":"2026-01-02T03:04:05.5Z","sequence":"`+testPosition+`","datacontenttype":"text/plain; charset=utf-8","data":"a\u000a<é>"}`,
				ceHeaders("application/cloudevents+json; charset=utf-8")),
		},
		{
			"structured with text that is JSON by its content type",
			Config{Format: FormatCloudEventsStructured}, paymentRow(column{rolePayload, oidText, "[1]"}, column{roleHeaders, oidJSONB, `{"content-type": "application/vnd.x+JSON ; a=b"}`}),
			paymentRecord(`{"specversion":"1.0","id":"`+testID+`","source":"/payments","type":"payment.completed.v1","subject":"r-17",`+
				`"time":"2026-01-02T03:04:05.5Z","sequence":"`+testPosition+`","datacontenttype":"application/vnd.x+JSON ; a=b","data":[1]}`,
				ceHeaders("application/cloudevents+json; charset=utf-8")),
		},
		{
			"structured tombstone",
			Config{Format: FormatCloudEventsStructured}, paymentRow(column{rolePayload, oidJSONB, nil}), tombstone(ceHeaders("")),
		},
		{
			"produce time is a zero timestamp",
			Config{Timestamp: "produce"}, paymentRow(),
			func() cdc.Record {
				record := paymentRecord(`{"a": 1}`, ceHeaders("application/json"))
				record.Timestamp = time.Time{}
				return record
			}(),
		},
		{
			"columns under other names, and a role in a template",
			Config{Columns: map[string]string{roleAggregateType: "kind"}, Topic: "{kind}-event", Key: "{aggregateid}"},
			paymentRow(column{roleAggregateType, 0, nil}, column{"kind", oidText, "payment"}),
			paymentRecord(`{"a": 1}`, ceHeaders("application/json")),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mustNew(t, test.cfg).Route(test.row)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRouteBadRows(t *testing.T) {
	allowed := Config{AllowedTopics: []string{"payment-event", "order.*"}, ReservedTopics: []cdc.Topic{"order.position"}}
	for _, test := range []struct {
		name      string
		cfg       Config
		row       *cdc.Row
		what, fix string
	}{
		{"topic not allowed", allowed, paymentRow(column{roleAggregateType, oidText, "user"}), `topic "user-event", which routing.allowed_topics does not contain`, `add "user-event" to routing.allowed_topics`},
		{"topic beyond a prefix", Config{Topic: "{type}", AllowedTopics: []string{"payment.x*"}}, paymentRow(), `topic "payment.completed.v1", which routing.allowed_topics`, "routing.allowed_topics"},
		{"reserved topic", Config{Topic: "{aggregatetype}", AllowedTopics: []string{"*"}, ReservedTopics: []cdc.Topic{"payment"}}, paymentRow(), `topic "payment", which is the relay's own topic`, "routing.topic"},
		{"invalid topic", Config{}, paymentRow(column{roleAggregateType, oidText, "a b"}), `topic "a b-event", which is no valid topic name: it contains ' '`, "routing.topic"},
		{"empty topic", Config{Topic: "{aggregatetype}"}, paymentRow(column{roleAggregateType, oidText, ""}), "it is empty", "routing.topic"},
		{"long topic", Config{}, paymentRow(column{roleAggregateType, oidText, strings.Repeat("a", 244)}), "it has 250 characters", "routing.topic"},
		{"NULL in the topic", Config{}, paymentRow(column{roleAggregateType, oidText, nil}), `NULL in column "aggregatetype", which names the topic`, "routing.topic"},
		{"NULL in a part of the key", Config{Key: "{aggregateid}.{shard}"}, paymentRow(column{"shard", oidText, nil}), `NULL in column "shard", a part of the key`, "routing.key"},
		{"missing column", Config{Key: "{shard}"}, paymentRow(), `public.outbox, which has no column "shard"`, "add the column"},
		{"missing column that is named", Config{Columns: map[string]string{roleHeaders: "meta"}}, paymentRow(), `no column "meta"`, "postgres.columns"},
		{"created_at of another type", Config{}, paymentRow(column{roleCreatedAt, oidInt8, "1"}), `column "created_at" is no timestamp`, "timestamptz"},
		{"created_at at infinity", Config{}, paymentRow(column{roleCreatedAt, oidTimestamptz, "infinity"}), `"infinity": not a time between`, "created_at"},
		{"NULL type", Config{}, paymentRow(column{roleType, oidText, nil}), `no value in column "id" or "type"`, "routing.format"},
		{"empty type", Config{}, paymentRow(column{roleType, oidText, ""}), `no value in column "id" or "type"`, "routing.format"},
		{"nothing to place by", Config{Format: FormatRaw}, paymentRow(column{roleID, oidUUID, nil}, column{roleAggregateID, oidText, nil}), "to place it by", "event id"},
		{"raw without event id", Config{Format: FormatRaw}, paymentRow(column{roleID, oidUUID, nil}), "an event without id", "event id"},
		{"bytea not in hex", Config{}, paymentRow(column{rolePayload, oidBytea, `a\000`}), "not in hex form", "bytea_output"},
		{"bytea cut off", Config{}, paymentRow(column{rolePayload, oidBytea, `\x0`}), "not in hex form", "bytea_output"},
		{"headers number", Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"n": 1}`}), `has a number under "n"`, "from string to string"},
		{"headers null", Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"n": null}`}), `has null under "n"`, "from string to string"},
		{"headers of the relay", Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"cdc-relay-x": "1"}`}), `"cdc-relay-x"; the prefix cdc-relay-`, "another name"},
		{"headers of the format", Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"ce_id": "1"}`}), `"ce_id", a header that the relay sets`, "another name"},
		{"headers of the raw format", Config{Format: FormatRaw}, paymentRow(column{roleHeaders, oidJSONB, `{"id": "1"}`}), `"id", a header that the relay sets`, "another name"},
		{"header without name", Config{}, paymentRow(column{roleHeaders, oidJSONB, `{"": "1"}`}), "an entry without a name", "another name"},
		{"structured with a bad attribute", Config{Format: FormatCloudEventsStructured}, paymentRow(column{roleHeaders, oidJSONB, `{"ce_a-b": "1"}`}), `"ce_a-b", which is no name of a CloudEvents attribute`, "ce_"},
		{"structured with an attribute that is the data", Config{Format: FormatCloudEventsStructured}, paymentRow(column{roleHeaders, oidJSONB, `{"ce_data": "1"}`}), `"ce_data", which is no name`, "ce_"},
		{"structured with text that is no JSON", Config{Format: FormatCloudEventsStructured}, paymentRow(column{rolePayload, oidText, "{"}, column{roleHeaders, oidJSONB, `{"content-type": "application/json"}`}), "it is no JSON", "content-type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mustNew(t, test.cfg).Route(test.row)
			problem, ok := errors.AsType[*cdc.Problem](err)
			if !ok {
				t.Fatalf("got %+v, %v, want a bad row", got, err)
			}
			if problem.Reason != cdc.HaltBadRow || problem.Treatment != cdc.Halt {
				t.Errorf("got reason %s, treatment %d", problem.Reason, problem.Treatment)
			}
			if !strings.Contains(problem.What, test.what) || !strings.Contains(problem.What, "0/16B3600:3") {
				t.Errorf("what is %q, want it to contain %q and the position", problem.What, test.what)
			}
			if test.row.EventID != nil && !strings.Contains(problem.What, testID) {
				t.Errorf("what is %q, want it to name the event", problem.What)
			}
			if !strings.Contains(problem.Fix, test.fix) || !strings.Contains(problem.Fix, "on_bad_row: park") {
				t.Errorf("fix is %q, want it to contain %q and how to go on without the row", problem.Fix, test.fix)
			}
		})
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	_, err := New(Config{
		Format: "avro", Topic: "{a", Key: "}", Timestamp: "now", Columns: map[string]string{"key": "k", "id": ""},
		AllowedTopics: []string{"a b", "*b", "position", ".."}, ReservedTopics: []cdc.Topic{"position"},
	})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		`routing.format is "avro"`, `routing.topic: a { without }`, `routing.key: a } without {`, `routing.timestamp is "now"`,
		`"key" is no role`, `id has no column name`, `"a b" is no topic name`, `"*b" is no topic name`, `"position" is the relay's own topic`, `".." is no topic name`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %s", err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	all := []string{"*"}
	for _, test := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no allowed topics", Config{Source: "/a"}, "routing.allowed_topics is empty"},
		{"no source", Config{AllowedTopics: all}, `routing.source is ""`},
		{"a source that is no URI", Config{AllowedTopics: all, Source: "a b"}, `routing.source is "a b"`},
		{"a constant topic that is not allowed", Config{AllowedTopics: []string{"b"}, Source: "/a", Topic: "a"}, `routing.topic is always "a"`},
		{"debezium options without the format", Config{AllowedTopics: all, Source: "/a", Debezium: map[string]string{"a": "b"}}, "routing.debezium has no effect"},
		{"position header where it is always sent", Config{AllowedTopics: all, Source: "/a", PositionHeader: true}, "position_header has no effect"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := New(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestRequiredColumns(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"cloudevents", Config{}, []string{"id", "aggregatetype", "aggregateid", "type", "payload"}},
		{"raw", Config{Format: FormatRaw, Topic: "events", Key: "{shard}", Columns: map[string]string{rolePayload: "body", roleType: "kind"}}, []string{"id", "shard", "body", "kind"}},
		{"columns by their default names are not required for it", Config{Columns: map[string]string{roleHeaders: roleHeaders, roleCreatedAt: roleCreatedAt}}, []string{"id", "aggregatetype", "aggregateid", "type", "payload"}},
		{"debezium", Config{Format: FormatDebezium, Debezium: map[string]string{optionPlacement: "type:header,id:header:x", optionKey: "k"}}, []string{"id", "aggregatetype", "k", "payload", "type"}},
		{"debezium that ignores missing columns", Config{Format: FormatDebezium, Debezium: map[string]string{optionPlacement: "type:header", optionMissing: "ignore"}}, []string{"id", "aggregatetype", "aggregateid", "payload"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, mustNew(t, test.cfg).RequiredColumns()); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIDColumn(t *testing.T) {
	columns := map[string]string{roleID: "event"}
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "id"},
		{Config{Columns: columns}, "event"},
		{Config{Format: FormatDebezium, Columns: columns}, "event"},
		{Config{Format: FormatDebezium, Columns: columns, Debezium: map[string]string{optionID: "event_id"}}, "event_id"},
	} {
		if got := mustNew(t, test.cfg).IDColumn(); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.cfg, got, test.want)
		}
	}
}

func TestRouteFollowsTheRelation(t *testing.T) {
	r := mustNew(t, Config{Key: "{shard}"})
	first, other := paymentRow(column{"shard", oidText, "s1"}), paymentRow()
	added := newRow(append([]column{{"shard", oidText, "s2"}}, column{roleID, oidUUID, testID}, column{roleAggregateType, oidText, "payment"}, column{roleType, oidText, "t"}, column{rolePayload, oidText, "p"})...)
	for range 2 {
		if record, err := r.Route(first); err != nil || string(record.Key) != "s1" {
			t.Errorf("got key %q, %v, want s1", record.Key, err)
		}
		if _, err := r.Route(other); err == nil {
			t.Error("a relation without the column is routed")
		}
		if record, err := r.Route(added); err != nil || string(record.Key) != "s2" {
			t.Errorf("got key %q, %v, want s2", record.Key, err)
		}
	}
}

func TestCommitTimeFollowsTheTransaction(t *testing.T) {
	r := mustNew(t, Config{Format: FormatRaw})
	row := paymentRow()
	for i := range 3 {
		row.CommitTime = testCommitTime.Add(time.Duration(i/2) * time.Hour).In(time.FixedZone("", 3600))
		record, err := r.Route(row)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678901Z", "2026-01-02T04:04:05.678901Z"}[i]
		if got := string(record.Headers[3].Value); record.Headers[3].Key != HeaderCommitTime || got != want {
			t.Errorf("row %d: got %s %s, want %s", i, record.Headers[3].Key, got, want)
		}
	}
}

func TestPositionHeaderIsTheCorePositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := cdc.Position{Generation: rapid.Uint16().Draw(t, "generation"), CommitLSN: cdc.LSN(rapid.Uint64().Draw(t, "lsn")), Serial: rapid.Uint32().Draw(t, "serial")}
		if got := string(appendPositionHeader(nil, p)); got != p.Header() {
			t.Fatalf("got %s, want %s", got, p.Header())
		}
	})
}

// Whatever else differs, rows with one key are placed alike; rows without a
// key by their aggregate id.
func TestPlacementIsAFunctionOfTheKey(t *testing.T) {
	nullable := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.StringN(0, 8, -1), func(s string) any { return s }))
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{FormatCloudEvents, FormatCloudEventsStructured, FormatRaw, FormatDebezium}).Draw(t, "format")
		cfg := Config{Format: format, Source: "/a", Key: "{shard}", AllowedTopics: []string{"*"}}
		if format == FormatDebezium {
			cfg.Key, cfg.Debezium = "", map[string]string{optionKey: "shard"}
		}
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		key, aggregate := nullable.Draw(t, "key"), nullable.Draw(t, "aggregate")
		route := func(label string) cdc.Record {
			record, err := r.Route(paymentRow(
				column{"shard", oidText, key}, column{roleAggregateID, oidText, aggregate},
				column{roleAggregateType, oidText, rapid.SampledFrom([]string{"a", "b"}).Draw(t, label+" type")},
				column{rolePayload, oidText, nullable.Draw(t, label+" payload")},
			))
			if err != nil {
				t.Fatal(err)
			}
			return record
		}
		one, other := route("one"), route("other")
		if string(one.Placement) != string(other.Placement) {
			t.Fatalf("placed by %q and %q", one.Placement, other.Placement)
		}
		if (one.Key == nil) != (key == nil) || key != nil && string(one.Placement) != key.(string) {
			t.Fatalf("key %v became %q, placed by %q", key, one.Key, one.Placement)
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	for _, bench := range []struct {
		name string
		cfg  Config
	}{
		{"cloudevents", Config{}},
		{"structured", Config{Format: FormatCloudEventsStructured}},
		{"raw", Config{Format: FormatRaw}},
		{"debezium", Config{Format: FormatDebezium}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := mustNew(b, bench.cfg)
			row := paymentRow(column{roleHeaders, oidJSONB, `{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`})
			b.ReportAllocs()
			for b.Loop() {
				row.Serial++
				if _, err := r.Route(row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
