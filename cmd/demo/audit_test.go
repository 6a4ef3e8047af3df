package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// exactRun is a run of many payments of few keys without a fault: rows in
// commit order, and the records of each partition in that order.
func exactRun(read time.Time) (rows []committedRow, records []seenRecord) {
	offsets := map[int32]int64{}
	for i := range 60 {
		row := committedRow{eventID: fmt.Sprintf("event-%d", i), paymentID: fmt.Sprintf("payment-%d", i), key: fmt.Sprintf("key-%d", i%7), readAt: read}
		rows = append(rows, row)
		partition := cdc.PartitionFor([]byte(row.key), partitions)
		records = append(records, seenRecord{partition: partition, offset: offsets[partition], eventID: row.eventID, paymentID: row.paymentID, key: row.key})
		offsets[partition] += 2 // markers take offsets too
	}
	return rows, records
}

// samePartition returns the indexes of two neighbours in one partition.
func samePartition(records []seenRecord) (int, int) {
	for j := 11; ; j++ {
		if records[j].partition == records[10].partition {
			return 10, j
		}
	}
}

func TestJudge(t *testing.T) {
	read := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	long := read.Add(time.Second) // a row read before this is late
	tests := []struct {
		name  string
		late  time.Time
		spoil func(rows []committedRow, records []seenRecord) ([]committedRow, []seenRecord)
		want  verdict
	}{
		{"an exact run", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) { return r, s },
			verdict{Committed: 60, Delivered: 60}},
		{"a lost record in the middle, however young its row", read, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, slices.Delete(s, 10, 11)
		}, verdict{Committed: 60, Delivered: 59, Missing: 1}},
		{"a lost record at the end", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, s[:59]
		}, verdict{Committed: 60, Delivered: 59, Missing: 1}},
		{"a record that may still come", read, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, s[:59]
		}, verdict{Committed: 60, Delivered: 59, OnTheWay: 1}},
		{"a record twice", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, append(s, s[30])
		}, verdict{Committed: 60, Delivered: 60, Duplicate: 1}},
		{"two records swapped", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			i, j := samePartition(s)
			s[i], s[j] = s[j], s[i]
			return r, s
		}, verdict{Committed: 60, Delivered: 60, OutOfOrder: 1}},
		{"a record of a rolled back transaction", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, append(s, seenRecord{paymentID: "payment-of-nobody", eventID: "event-of-nobody", key: "key-1"})
		}, verdict{Committed: 60, Delivered: 60, Phantom: 1}},
		{"a value that is no payment", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			return r, append(s, seenRecord{})
		}, verdict{Committed: 60, Delivered: 60, Phantom: 1}},
		{"another key", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			s[20].key = "key-of-others"
			return r, s
		}, verdict{Committed: 60, Delivered: 60, Wrong: 1}},
		{"another event id", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			s[20].eventID = s[21].eventID
			return r, s
		}, verdict{Committed: 60, Delivered: 60, Wrong: 1}},
		{"another partition", long, func(r []committedRow, s []seenRecord) ([]committedRow, []seenRecord) {
			s[59].partition = (s[59].partition + 1) % partitions
			return r, s
		}, verdict{Committed: 60, Delivered: 60, Wrong: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rows, records := test.spoil(exactRun(read))
			got := judge(rows, records, test.late)
			wrong := test.want.Missing + test.want.Duplicate + test.want.OutOfOrder + test.want.Phantom + test.want.Wrong
			if len(got.examples) != wrong || got.exact() != (wrong == 0) {
				t.Errorf("got examples %q, exact %v", got.examples, got.exact())
			}
			got.examples = nil
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestAnOutcomeIsFaultlessOnlyAsAWhole(t *testing.T) {
	clean := func() outcome {
		return outcome{verdict: verdict{Committed: 9, Delivered: 9}, ends: ends{answered: 9}, tableRows: 9}
	}
	if o := clean(); !o.faultless() {
		t.Fatalf("%+v is not faultless", o)
	}
	for name, spoil := range map[string]func(*outcome){
		"missing":            func(o *outcome) { o.Missing++ },
		"duplicate":          func(o *outcome) { o.Duplicate++ },
		"out of order":       func(o *outcome) { o.OutOfOrder++ },
		"phantom":            func(o *outcome) { o.Phantom++ },
		"wrong":              func(o *outcome) { o.Wrong++ },
		"on the way":         func(o *outcome) { o.OnTheWay++ },
		"row without WAL":    func(o *outcome) { o.tableRows++ },
		"nothing happened":   func(o *outcome) { o.answered = 0 },
		"lost by the API":    func(o *outcome) { o.lost++ },
		"not in Slack":       func(o *outcome) { o.notPosted++ },
		"twice in Slack":     func(o *outcome) { o.repeated++ },
		"invented for Slack": func(o *outcome) { o.unknowns++ },
	} {
		o := clean()
		if spoil(&o); o.faultless() {
			t.Errorf("%s: still faultless", name)
		}
	}
}

func TestACheckThatProvesNothingIsNotFulfilled(t *testing.T) {
	d := demands{payments: 2000, kills: 3, rolledBackPerSecond: 1}
	enough := outcome{verdict: verdict{Committed: 2000}, kills: 3, outages: 1, restarts: 1, keysWithMore: 1, rolledBack: 20, seconds: 20}
	if list := d.unfulfilled(&enough); len(list) != 0 {
		t.Errorf("got %q", list)
	}
	if list := d.unfulfilled(&outcome{seconds: 20}); len(list) != 6 {
		t.Errorf("got %q, want six", list)
	}
}

func TestInsertedID(t *testing.T) {
	const id = "0193a5be-0a1b-7c2d-8e3f-4a5b6c7d8e9f"
	for data, want := range map[string]string{
		"table public.outbox: INSERT: id[uuid]:'" + id + "' aggregatetype[text]:'payment'":                              id,
		"table public.outbox_default: INSERT: id[uuid]:'" + id + "' aggregatetype[text]:'payment'":                      id,
		`table public."outbox_2026-01-02": INSERT: aggregatetype[text]:'payment' id[uuid]:'` + id + "'":                 id,
		"table payment.payments: INSERT: id[uuid]:'" + id + "'":                                                         "",
		"table public.outbox: DELETE: id[uuid]:'" + id + "'":                                                            "",
		"table public.outbox: INSERT: aggregatetype[text]:'payment' payload[jsonb]:'{\"a\": \"x_id[uuid]:''" + id + "'": "",
	} {
		if got, ok := insertedID(data); got != want || ok != (want != "") {
			t.Errorf("%s: got %q %v", data, got, ok)
		}
	}
}

func TestSlackIsHeldAgainstTheCommittedRows(t *testing.T) {
	w := newWatch()
	post := func(id, title string) {
		w.posted(slackPost(title, id))
	}
	ids := make([]string, 5)
	var rows []committedRow
	for i := range ids {
		ids[i] = fmt.Sprintf("0193a5be-0a1b-7c2d-8e3f-%012d", i)
		w.answered(paid{ID: fmt.Sprint(i), EventID: ids[i]}, time.Now())
		if i != 4 {
			rows = append(rows, committedRow{eventID: ids[i]}) // the last one was answered and is lost
		}
	}
	post(ids[0], "Payment completed")
	post(ids[1], "Payment completed")
	post(ids[1], "Payment completed (possibly repeated)")
	post(ids[2], "Payment completed")
	post(ids[2], "Payment completed")
	post(strings.Repeat("0", 8)+ids[0][8:], "Payment completed")
	want := ends{answered: 5, lost: 1, notPosted: 1, repeated: 1, flaggedRepeats: 1, unknowns: 1}
	if got := w.compare(rows); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
