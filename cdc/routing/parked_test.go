package routing

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestPark(t *testing.T) {
	why := &cdc.Problem{What: "it routes nowhere"}
	for _, test := range []struct {
		name   string
		cfg    Config
		change func(row *cdc.Row)
		value  string
		key    string
	}{
		{name: "a row as it came", value: `{"amount": 15000}`, key: testID},
		{name: "a bytea as its bytes", change: func(row *cdc.Row) {
			row.Relation = relationWithPayload(row.Relation, oidBytea)
			row.Values[row.Relation.Index("payload")] = []byte(`\x6100`)
		}, value: "a\x00", key: testID},
		{name: "a bytea that is none stays as Postgres printed it", change: func(row *cdc.Row) {
			row.Relation = relationWithPayload(row.Relation, oidBytea)
			row.Values[row.Relation.Index("payload")] = []byte(`escape`)
		}, value: "escape", key: testID},
		{name: "no event id", change: func(row *cdc.Row) { row.EventID = nil }, value: `{"amount": 15000}`},
		{name: "format debezium has another payload", cfg: Config{Format: FormatDebezium, Debezium: map[string]string{optionPayload: "type"}}, value: "payment.completed.v1", key: testID},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := test.cfg
			cfg.ParkedTopic, cfg.AllowedTopics = "parked", []string{"*"}
			if cfg.Format == "" {
				cfg.Source = "/payments"
			}
			r, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			row := paymentRow()
			row.Values[row.Relation.Index("payload")] = []byte(`{"amount": 15000}`)
			if test.change != nil {
				test.change(row)
			}
			record := r.Park(row, why)
			if record.Topic != "parked" || string(record.Value) != test.value || string(record.Key) != test.key || len(record.Placement) == 0 {
				t.Errorf("topic %s, key %q, value %q, placement %q", record.Topic, record.Key, record.Value, record.Placement)
			}
			headers := map[string]string{}
			for _, h := range record.Headers {
				headers[h.Key] = string(h.Value)
			}
			for i, column := range row.Relation.Columns {
				got, ok := headers[HeaderParkedColumnPrefix+column.Name]
				if isPayload := string(row.Values[i]) == string(record.Value) || column.Name == "payload" && test.cfg.Format == ""; ok == isPayload || ok && got != string(row.Values[i]) {
					t.Errorf("column %s is in the headers: %t, %q", column.Name, ok, got)
				}
			}
			want := map[string]string{HeaderParkedReason: why.What, HeaderParkedTable: "public.outbox", HeaderPosition: row.Position.Header()}
			for key := range want {
				if diff := cmp.Diff(want[key], headers[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
		})
	}
}

func relationWithPayload(relation *cdc.Relation, oid uint32) *cdc.Relation {
	changed := *relation
	changed.Columns = append([]cdc.Column(nil), relation.Columns...)
	changed.Columns[relation.Index("payload")].TypeOID = oid
	return &changed
}
