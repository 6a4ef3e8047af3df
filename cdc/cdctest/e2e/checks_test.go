package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

// The checks accept what is right and find each thing that is not.
func TestChecksFind(t *testing.T) {
	one := paid{ID: uuid.New(), EventID: uuid.New(), Status: "COMPLETED"}
	two := paid{ID: uuid.New(), EventID: uuid.New(), Status: "FAILED"}
	told := map[uuid.UUID]paid{one.ID: one, two.ID: two}
	events := map[uuid.UUID]uuid.UUID{one.EventID: one.ID, two.EventID: two.ID}
	of := func(p paid) row {
		return row{ID: p.ID, Status: p.Status, History: 1, Events: []uuid.UUID{p.EventID}}
	}
	changed := func(change func(*row)) row {
		r := of(two)
		change(&r)
		return r
	}
	record := func(p paid, position string) *kgo.Record {
		return &kgo.Record{Value: fmt.Appendf(nil, `{"payment_id":%q}`, p.ID), Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte(p.EventID.String())}, {Key: "cdc-relay-position", Value: []byte(position)},
		}}
	}
	message := func(p paid, text string) fakeslack.Message {
		return fakeslack.Message{Text: text, Body: json.RawMessage("{\"text\":\"event `" + p.EventID.String() + "`\"}")}
	}
	records := func(list ...*kgo.Record) []string { return checkRecords(map[int32][]*kgo.Record{0: list}, events) }
	messages := func(list ...fakeslack.Message) []string { _, wrong := checkMessages(list, events); return wrong }
	stranger := paid{ID: uuid.New(), EventID: uuid.New(), Status: "COMPLETED"}
	for name, test := range map[string]struct {
		wrong []string
		want  string // part of the first finding; empty: none
	}{
		"tables in order":             {checkTables([]row{of(one), of(two)}, told), ""},
		"a payment in no answer":      {checkTables([]row{of(one), of(two), of(stranger)}, told), "in no answer"},
		"a payment in no table":       {checkTables([]row{of(one)}, told), "in no table"},
		"another status":              {checkTables([]row{of(one), changed(func(r *row) { r.Status = "COMPLETED" })}, told), "the answer was"},
		"two history rows":            {checkTables([]row{of(one), changed(func(r *row) { r.History = 2 })}, told), "2 history rows"},
		"no event":                    {checkTables([]row{of(one), changed(func(r *row) { r.Events = nil })}, told), "events []"},
		"another event":               {checkTables([]row{of(one), changed(func(r *row) { r.Events[0] = one.EventID })}, told), "the answer was"},
		"events without payment":      {checkTables([]row{of(one), changed(func(r *row) { r.Strays = 3 })}, told), "3 outbox rows"},
		"records in order":            {records(record(one, "1"), record(two, "2")), ""},
		"a record is missing":         {records(record(one, "1")), "has 0 records"},
		"a record twice":              {records(record(one, "1"), record(two, "2"), record(two, "3")), "has 2 records"},
		"records out of order":        {records(record(one, "2"), record(two, "1")), "is not behind"},
		"a record of nobody":          {records(record(one, "1"), record(two, "2"), record(stranger, "3")), "is about payment"},
		"messages in order":           {messages(message(one, "a"), message(two, "b")), ""},
		"a marked repetition":         {messages(message(one, "a"), message(two, "b"), message(two, "b (possibly repeated)")), ""},
		"a repetition without a mark": {messages(message(one, "a"), message(two, "b"), message(two, "b")), "does not say so"},
		"a message is missing":        {messages(message(one, "a")), "has no message"},
		"a message of an unknown one": {messages(message(one, "a"), message(two, "b"), message(stranger, "c")), "unknown event"},
		"a message without its event": {messages(message(one, "a"), message(two, "b"), fakeslack.Message{Text: "c", Body: json.RawMessage(`{}`)}), "names no event"},
	} {
		switch {
		case test.want == "" && len(test.wrong) != 0:
			t.Errorf("%s: got %q, want nothing", name, test.wrong)
		case test.want != "" && (len(test.wrong) == 0 || !strings.Contains(test.wrong[0], test.want)):
			t.Errorf("%s: got %q, want %q first", name, test.wrong, test.want)
		}
	}
}
