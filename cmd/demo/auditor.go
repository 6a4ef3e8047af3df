package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// How long a committed row may be on its way before it counts as missing: while
// the demo runs, and at its end, when nothing is committed any more.
const (
	patience      = 30 * time.Second
	finalPatience = 90 * time.Second
)

// auditInterval is how often the page's counts are brought up to date.
const auditInterval = 2 * time.Second

// auditor holds what was committed against what was delivered.
type auditor struct {
	truth    *truth
	observer *observer
	watch    *watch

	mu sync.Mutex // held during a look: an older verdict must not follow a newer one
}

// look judges what there is now. The records are taken before the rows are read,
// so that every record's row is among them.
func (a *auditor) look(ctx context.Context, patience time.Duration) (verdict, []committedRow, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	records := a.observer.records()
	rows, err := a.truth.read(ctx)
	if err != nil {
		return verdict{}, nil, err
	}
	now := time.Now()
	v := judge(rows, records, now.Add(-patience))
	a.watch.audited(v, now)
	return v, rows, nil
}

// run keeps the page's counts up to date until ctx ends.
func (a *auditor) run(ctx context.Context) error {
	for sleep(ctx, auditInterval) {
		_, _, _ = a.look(ctx, patience) // Postgres may be away; the time of the last look is shown
	}
	return nil
}

// settled looks until no row is on its way, and returns the last verdict.
func (a *auditor) settled(ctx context.Context, most time.Duration) (verdict, error) {
	a.watch.auditing(true)
	defer a.watch.auditing(false)
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	began := time.Now()
	v, known := verdict{}, false
	for {
		if next, _, err := a.look(ctx, most); err == nil {
			v, known = next, true
		}
		if known && (v.OnTheWay == 0 || !v.exact()) {
			return v, nil
		}
		if !sleep(ctx, 2*retryInterval) {
			return v, fmt.Errorf("%d rows are not in Kafka after %s", v.OnTheWay, time.Since(began).Round(time.Second))
		}
	}
}

// outcome is the last judgement of a run.
type outcome struct {
	verdict
	ends
	kills, outages, restarts int
	rolledBack               int
	keys, keysWithMore       int
	tableRows                int
	seconds                  float64
}

// final judges everything after the load has stopped. stopRelay ends the relay
// once all is delivered, so that nothing can come after the last look.
func (a *auditor) final(ctx context.Context, stopRelay func()) (outcome, error) {
	var o outcome
	_, settleErr := a.settled(ctx, finalPatience) // judged below, whatever it says
	slackErr := a.awaitSlack(ctx)
	stopRelay()
	catchCtx, cancel := context.WithTimeout(ctx, finalPatience)
	defer cancel()
	if err := a.observer.catchUp(catchCtx); err != nil {
		return o, errors.Join(err, settleErr)
	}
	v, rows, err := a.look(ctx, 0)
	if err != nil {
		return o, err
	}
	o.verdict, o.ends = v, a.watch.compare(rows)
	if o.tableRows, err = a.truth.count(ctx); err != nil {
		return o, err
	}
	perKey := map[string]int{}
	for _, row := range rows {
		perKey[row.key]++
	}
	for _, n := range perKey {
		o.keys++
		if n > 1 {
			o.keysWithMore++
		}
	}
	return o, errors.Join(settleErr, slackErr)
}

// awaitSlack waits until every committed event has its message.
func (a *auditor) awaitSlack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finalPatience)
	defer cancel()
	for {
		_, rows, err := a.look(ctx, finalPatience)
		e := a.watch.compare(rows)
		if err == nil && e.notPosted == 0 {
			return nil
		}
		if !sleep(ctx, 2*retryInterval) {
			return errors.Join(fmt.Errorf("%d events have no Slack message after %s", e.notPosted, finalPatience), err)
		}
	}
}

// faultless says whether the run is exact from request to Slack.
func (o *outcome) faultless() bool {
	return o.exact() && o.OnTheWay == 0 && o.tableRows == o.Committed && o.answered > 0 &&
		o.lost == 0 && o.notPosted == 0 && o.repeated == 0 && o.unknowns == 0
}

// demands is what a run with --check has to contain to prove anything.
type demands struct {
	payments, kills, rolledBackPerSecond int
}

// unfulfilled lists what the run did not contain.
func (d demands) unfulfilled(o *outcome) []string {
	var list []string
	for _, demand := range []struct {
		got, want int
		what      string
	}{
		{o.Committed, d.payments, "payments"},
		{o.kills, d.kills, "kill -9 of the relay"},
		{o.outages, 1, "restarts of the broker"},
		{o.restarts, 1, "restarts of Postgres"},
		{o.keysWithMore, 1, "reservations with several payments"},
		{o.rolledBack, int(o.seconds) * d.rolledBackPerSecond, "rolled back transactions"},
	} {
		if demand.got < demand.want {
			list = append(list, fmt.Sprintf("%d %s, want at least %d", demand.got, demand.what, demand.want))
		}
	}
	return list
}

// print writes the counts.
func (o *outcome) print(w io.Writer) {
	fmt.Fprintf(w, "\npayments       %d answered, %d committed, %d in the table, %d in Kafka\n", o.answered, o.Committed, o.tableRows, o.Delivered)
	fmt.Fprintf(w, "reservations   %d, of them %d with several payments\n", o.keys, o.keysWithMore)
	fmt.Fprintf(w, "faults         %d kill -9 of the relay, %d broker restarts, %d Postgres restarts, %d rolled back transactions (%.1f a second)\n",
		o.kills, o.outages, o.restarts, o.rolledBack, float64(o.rolledBack)/max(o.seconds, 1))
	fmt.Fprintf(w, "Kafka          missing %d   duplicate %d   out of order %d   never committed %d   wrong content %d\n",
		o.Missing, o.Duplicate, o.OutOfOrder, o.Phantom, o.Wrong)
	fmt.Fprintf(w, "API            answered but not committed %d\n", o.lost)
	fmt.Fprintf(w, "Slack          without message %d   repeated %d   marked as possibly repeated %d   unknown %d\n", o.notPosted, o.repeated, o.flaggedRepeats, o.unknowns)
	for _, example := range o.examples {
		fmt.Fprintf(w, "  %s\n", example)
	}
}
