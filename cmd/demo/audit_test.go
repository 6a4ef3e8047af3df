package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

func TestNothingExplainsADifferenceInTheDemo(t *testing.T) {
	for name, test := range map[string]struct {
		report audit.Report
		want   verdict
	}{
		"nothing wrong":        {audit.Report{Found: 8, Pending: 1}, verdict{Delivered: 8, OnTheWay: 1}},
		"missing":              {audit.Report{Missing: 1}, verdict{Missing: 1}},
		"removed by retention": {audit.Report{Expired: 1}, verdict{Missing: 1}},
		"parked":               {audit.Report{Parked: 1}, verdict{Missing: 1}},
		"unroutable":           {audit.Report{Unroutable: 1}, verdict{Missing: 1}},
		"duplicate":            {audit.Report{Duplicate: 1}, verdict{Duplicate: 1}},
		"out of order":         {audit.Report{OutOfOrder: 1}, verdict{OutOfOrder: 1}},
		"backwards":            {audit.Report{Order: audit.Order{PositionsBackwards: 1}}, verdict{Backwards: 1}},
		"rolled back":          {audit.Report{Phantom: 1}, verdict{Phantom: 1}},
		"as if pruned":         {audit.Report{Pruned: 1}, verdict{Phantom: 1}},
		"of somebody else":     {audit.Report{Foreign: 1}, verdict{Phantom: 1}},
		"elsewhere":            {audit.Report{WrongPlace: 1}, verdict{Wrong: 1}},
		"changed":              {audit.Report{Changed: 1}, verdict{Wrong: 1}},
		"backfilled":           {audit.Report{Backfilled: 1}, verdict{Wrong: 1}},
	} {
		test.report.Rows, test.want.Committed = 9, 9
		got := verdictOf(&test.report, nil)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(verdict{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		if want := name == "nothing wrong"; got.exact() != want {
			t.Errorf("%s: exact is %v", name, got.exact())
		}
	}
}

func TestAnOutcomeIsFaultlessOnlyAsAWhole(t *testing.T) {
	clean := func() outcome {
		return outcome{verdict: verdict{Committed: 9, Delivered: 9}, ends: ends{answered: 9}}
	}
	if o := clean(); !o.faultless() {
		t.Fatalf("%+v is not faultless", o)
	}
	for name, spoil := range map[string]func(*outcome){
		"missing":            func(o *outcome) { o.Missing++ },
		"duplicate":          func(o *outcome) { o.Duplicate++ },
		"out of order":       func(o *outcome) { o.OutOfOrder++ },
		"backwards":          func(o *outcome) { o.Backwards++ },
		"phantom":            func(o *outcome) { o.Phantom++ },
		"wrong":              func(o *outcome) { o.Wrong++ },
		"on the way":         func(o *outcome) { o.OnTheWay++ },
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
	enough := outcome{verdict: verdict{Committed: 2000, pairs: 1000}, kills: 3, outages: 1, restarts: 1, withMore: 1, rolledBack: 20, seconds: 20}
	if list := d.unfulfilled(&enough); len(list) != 0 {
		t.Errorf("got %q", list)
	}
	if list := d.unfulfilled(&outcome{seconds: 20}); len(list) != 7 {
		t.Errorf("got %q, want seven", list)
	}
	enough.pairsUnknown = 1 // as without track_commit_timestamp
	if list := d.unfulfilled(&enough); len(list) != 1 {
		t.Errorf("got %q, want one", list)
	}
}

func TestSlackIsHeldAgainstTheCommittedRows(t *testing.T) {
	w := newWatch()
	post := func(id, title string) {
		w.posted(slackPost(title, id))
	}
	ids := make([]string, 5)
	committed := map[string]string{}
	for i := range ids {
		ids[i] = fmt.Sprintf("0193a5be-0a1b-7c2d-8e3f-%012d", i)
		w.answered(paid{ID: fmt.Sprint(i), EventID: ids[i]}, time.Now())
		if i != 4 {
			committed[ids[i]] = "reservation" // the last one was answered and is lost
		}
	}
	post(ids[0], "Payment completed")
	post(ids[1], "Payment completed")
	post(ids[1], "Payment completed (possibly repeated)")
	post(ids[2], "Payment completed")
	post(ids[2], "Payment completed")
	post(strings.Repeat("0", 8)+ids[0][8:], "Payment completed")
	want := ends{answered: 5, lost: 1, notPosted: 1, repeated: 1, flaggedRepeats: 1, unknowns: 1}
	if got := w.compare(committed); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
