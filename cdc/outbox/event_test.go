package outbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/outbox"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

func TestInsertRefusesBeforeSending(t *testing.T) {
	many := map[string]string{}
	for i := range 1001 {
		many[fmt.Sprintf("h%d", i)] = ""
	}
	fine := outbox.Event{AggregateType: "a", AggregateID: "b", Type: "c"}
	withHeaders := func(headers map[string]string) outbox.Event {
		event := fine
		event.Headers = headers
		return event
	}
	for _, test := range []struct {
		name  string
		table outbox.Table
		event outbox.Event
		want  []string
	}{
		{"all that is empty", outbox.DefaultTable, outbox.Event{}, []string{"AggregateType is empty", "AggregateID is empty", "Type is empty"}},
		{"headers of the relay", outbox.DefaultTable, withHeaders(map[string]string{"cdc-relay-position": "", "ce_id": "", "": ""}), []string{`"cdc-relay-position" itself`, `"ce_id" itself`, "has no name"}},
		{"too many headers", outbox.DefaultTable, withHeaders(many), []string{"1001 headers, the relay accepts 1000"}},
		{"no table", "", fine, []string{"want schema.table"}},
		{"a table of three parts", "a.b.c", fine, []string{"want schema.table"}},
		{"a schema alone", "a.", fine, []string{"want schema.table"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, insert := range []func() (uuid.UUID, error){
				// A transaction that is nil proves that nothing was sent.
				func() (uuid.UUID, error) { return test.table.Insert(t.Context(), nil, test.event) },
				func() (uuid.UUID, error) { return test.table.InsertSQL(t.Context(), nil, test.event) },
			} {
				id, err := insert()
				if err == nil || id != (uuid.UUID{}) {
					t.Fatalf("got %s, %v", id, err)
				}
				for _, want := range test.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %v, want %s", err, want)
					}
				}
			}
		})
	}
}

// The package repeats the relay's rules instead of importing them; both say
// the same about every header that the relay sets.
func TestHeaderRulesAreTheRelays(t *testing.T) {
	router, err := routing.New(routing.Config{Source: "/a", AllowedTopics: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	route := func(headers string) (cdc.Record, error) {
		relation, row := &cdc.Relation{}, &cdc.Row{}
		for _, column := range []struct{ name, value string }{
			{"id", "1"}, {"aggregatetype", "a"}, {"aggregateid", "b"}, {"type", "c"}, {"payload", "{}"}, {"headers", headers},
		} {
			relation.Columns = append(relation.Columns, cdc.Column{Name: column.name, TypeOID: 25})
			row.Values = append(row.Values, []byte(column.value))
		}
		row.Relation = relation
		return router.Route(row)
	}
	record, err := route("{}")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, header := range append(record.Headers, cdc.Header{Key: "traceparent"}, cdc.Header{Key: "ce_tenant"}, cdc.Header{Key: "cdc-relay-x"}) {
		_, routeErr := route(fmt.Sprintf(`{%q: "x"}`, header.Key))
		event := outbox.Event{AggregateType: "a", AggregateID: "b", Type: "c", Headers: map[string]string{header.Key: "x"}}
		_, insertErr := outbox.Insert(t.Context(), acceptingTx{}, event)
		if (routeErr == nil) != (insertErr == nil) {
			t.Errorf("header %s: the relay says %v, the outbox %v", header.Key, routeErr, insertErr)
		}
		if routeErr != nil {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d headers are refused, want the 7 attributes and 3 of cdc-relay-", refused)
	}
}

// acceptingTx is a transaction in which every statement succeeds.
type acceptingTx struct{ pgx.Tx }

func (acceptingTx) Conn() *pgx.Conn { return nil }

func (acceptingTx) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, nil
}
