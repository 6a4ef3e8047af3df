package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// How long rows may be on their way before an audit gives up: while the demo
// runs, and at its end, when nothing is committed any more.
const (
	patience      = 30 * time.Second
	finalPatience = 90 * time.Second
)

// auditInterval is how often the page's counts are brought up to date.
const auditInterval = 2 * time.Second

// maxExamples bounds what is shown of each kind.
const maxExamples = 3

// auditor holds what was committed against what was delivered.
type auditor struct {
	outbox postgres.Config
	kafka  kafka.Config
	// published asks the relay whether everything committed up to lsn is in Kafka.
	// If it says so too early, rows are missing; if never, they stay on their way.
	published func(ctx context.Context, lsn cdc.LSN) bool
	watch     *watch

	mu sync.Mutex // held during a look: an older verdict must not follow a newer one
}

// outboxRows notes the key of every row that it hands over.
type outboxRows struct {
	*postgres.OutboxScan
	keys map[string]string // by event id
}

// Scan implements audit.Rows.
func (o *outboxRows) Scan(ctx context.Context, in audit.Range, each func(*audit.Row) error) error {
	return o.OutboxScan.Scan(ctx, in, func(row *audit.Row) error {
		if i := row.Relation.Index("aggregateid"); i >= 0 {
			o.keys[string(row.EventID)] = string(row.Values[i])
		}
		return each(row)
	})
}

// look audits what there is now. With relayEnded nothing can come any more, so
// that a row without a record is missing.
func (a *auditor) look(ctx context.Context, relayEnded bool) (verdict, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sink, err := kafka.New(a.kafka)
	if err != nil {
		return verdict{}, err
	}
	router, err := routing.New(routing.Config{Source: relaySource, AllowedTopics: []string{event.Topic}})
	if err != nil {
		return verdict{}, err
	}
	scan, err := postgres.OpenOutboxScan(ctx, a.outbox)
	if err != nil {
		return verdict{}, err
	}
	defer scan.Close()
	rows := &outboxRows{OutboxScan: scan, keys: map[string]string{}}
	report, err := audit.Run(ctx, audit.Config{
		Rows: rows, Records: kafka.NewReader(sink), Router: router, IDHeader: "ce_id",
		Topics: []cdc.Topic{event.Topic}, MaxExamples: maxExamples,
		Published: func(ctx context.Context) (bool, error) {
			return relayEnded || a.published(ctx, scan.InsertLSN()), nil
		},
	})
	if err != nil {
		return verdict{}, err
	}
	v := verdictOf(report, rows.keys)
	a.watch.audited(v, time.Now())
	return v, nil
}

// run keeps the page's counts up to date until ctx ends.
func (a *auditor) run(ctx context.Context) error {
	for sleep(ctx, auditInterval) {
		_, _ = a.look(ctx, false) // a server may be away; the time of the last look is shown
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
		next, err := a.look(ctx, false)
		if err == nil {
			v, known = next, true
		}
		if known && (v.OnTheWay == 0 || !v.exact()) {
			return v, nil
		}
		if !sleep(ctx, 2*retryInterval) {
			return v, errors.Join(fmt.Errorf("%d rows are not in Kafka after %s", v.OnTheWay, time.Since(began).Round(time.Second)), err)
		}
	}
}

// outcome is the last judgement of a run.
type outcome struct {
	verdict
	ends
	kills, outages, restarts int
	rolledBack               int
	reservations, withMore   int // those paid, and those of them with several payments
	seconds                  float64
}

// final judges everything after the load has stopped. stopRelay ends the relay
// once all is delivered, so that nothing can come after the last look.
func (a *auditor) final(ctx context.Context, stopRelay func()) (outcome, error) {
	var o outcome
	settled, settleErr := a.settled(ctx, finalPatience) // judged below, whatever it says
	slackErr := a.awaitSlack(ctx, settled)
	stopRelay()
	v, err := a.look(ctx, true)
	if err != nil {
		return o, errors.Join(err, settleErr)
	}
	o.verdict, o.ends = v, a.watch.compare(v.keys)
	payments := map[string]int{}
	for _, reservation := range v.keys {
		payments[reservation]++
		if payments[reservation] == 2 {
			o.withMore++
		}
	}
	o.reservations = len(payments)
	return o, errors.Join(settleErr, slackErr)
}

// awaitSlack waits until every committed event has its message.
func (a *auditor) awaitSlack(ctx context.Context, v verdict) error {
	ctx, cancel := context.WithTimeout(ctx, finalPatience)
	defer cancel()
	for {
		e := a.watch.compare(v.keys)
		if e.notPosted == 0 {
			return nil
		}
		if !sleep(ctx, 2*retryInterval) {
			return fmt.Errorf("%d events have no Slack message after %s", e.notPosted, finalPatience)
		}
	}
}

// faultless says whether the run is exact from request to Slack.
func (o *outcome) faultless() bool {
	return o.exact() && o.OnTheWay == 0 && o.answered > 0 &&
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
		{int(o.Committed), d.payments, "payments"},
		{int(o.pairs), int(max(1, o.pairs+o.pairsUnknown)), "pairs of payments in a known order"},
		{o.kills, d.kills, "kill -9 of the relay"},
		{o.outages, 1, "restarts of the broker"},
		{o.restarts, 1, "restarts of Postgres"},
		{o.withMore, 1, "reservations with several payments"},
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
	fmt.Fprintf(w, "\npayments       %d answered, %d committed, %d in Kafka\n", o.answered, o.Committed, o.Delivered)
	fmt.Fprintf(w, "reservations   %d, of them %d with several payments\n", o.reservations, o.withMore)
	fmt.Fprintf(w, "faults         %d kill -9 of the relay, %d broker restarts, %d Postgres restarts, %d rolled back transactions (%.1f a second)\n",
		o.kills, o.outages, o.restarts, o.rolledBack, float64(o.rolledBack)/max(o.seconds, 1))
	fmt.Fprintf(w, "Kafka          missing %d   duplicate %d   out of order %d   never committed %d   wrong content %d\n",
		o.Missing, o.Duplicate, o.OutOfOrder, o.Phantom, o.Wrong)
	fmt.Fprintf(w, "order          %d pairs of one reservation by their commits, %d unknown; positions backwards %d of %d\n", o.pairs, o.pairsUnknown, o.Backwards, o.positions)
	fmt.Fprintf(w, "API            answered but not committed %d\n", o.lost)
	fmt.Fprintf(w, "Slack          without message %d   repeated %d   marked as possibly repeated %d   unknown %d\n", o.notPosted, o.repeated, o.flaggedRepeats, o.unknowns)
	o.printExamples(w)
}
