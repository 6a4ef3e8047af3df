package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// markersWritten is after the 20 ms with which brokers look again whether the
	// markers of an id's last transaction are written
	// (add.partitions.to.txn.retry.backoff.ms).
	markersWritten = 30 * time.Millisecond
	// askMarkersEvery is the pause between two questions.
	askMarkersEvery = 300 * time.Microsecond
	// askMarkersAgain is the pause after the coordinator could not tell.
	askMarkersAgain = time.Minute
	// markersTakeAtFirst is what markers are taken to take before any were timed.
	markersTakeAtFirst = 2 * time.Millisecond
	// worthAsking is how long after the end of a transaction a question is always
	// worth its while: it takes half a millisecond, and one marker in some hundred is
	// late by milliseconds.
	worthAsking = 5 * time.Millisecond
)

// markersTime estimates how long after the answer to EndTxn the markers are
// written. The zero value has timed none.
type markersTime struct{ took time.Duration }

func (m markersTime) estimate() time.Duration {
	if m.took == 0 {
		return markersTakeAtFirst
	}
	return m.took
}

// asked takes in that the markers were seen to be written so long after the end.
// Where the first question found them, that is only a bound, and the estimate
// comes down until a question comes too early.
func (m *markersTime) asked(since time.Duration, first bool) {
	if first {
		since = min(since, m.estimate()*7/8)
	}
	m.took = since
}

// askAt is a little before the answer can be expected.
func (m markersTime) askAt(ended time.Time) time.Time { return ended.Add(m.estimate() * 3 / 4) }

// past says that a question would be a waste: it is several times as long as
// markers take. To be wrong costs the next transaction one look of the broker.
func (m markersTime) past(since time.Duration) bool { return since >= max(m.estimate()*4, worthAsking) }

// awaitMarkers waits until the coordinator has written the markers of the
// producer's last transaction, or for markersWritten; after a time that is past
// all doubt it does not ask. A transaction that begins earlier is held back by the
// broker, for 20 ms each time that it looks; and readers could see it in one
// partition before they see its predecessor in another. Not knowing is no error:
// the transaction is committed.
func (p *publisher) awaitMarkers(ctx context.Context, producer *producer) {
	if now := time.Now(); now.Before(p.askMarkersAt) || p.markers.past(now.Sub(producer.endedAt)) {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, producer.endedAt.Add(p.sink.markersWritten))
	defer cancel()
	time.Sleep(time.Until(p.markers.askAt(producer.endedAt))) // too short to be worth a timer
	for first := true; ctx.Err() == nil; first = false {
		ending, err := p.ending(ctx, producer.id)
		switch {
		case err == nil && !ending:
			p.markers.asked(time.Since(producer.endedAt), first)
			return
		case err != nil && ctx.Err() == nil:
			p.sink.log.Debug("kafka does not tell whether markers are written", "id", producer.id, "cause", err)
			p.askMarkersAt = time.Now().Add(askMarkersAgain)
			return
		}
		time.Sleep(askMarkersEvery)
	}
}

// ending says whether a decided transaction's markers are still to be written.
// (KIP-664, DescribeTransactions.)
func (p *publisher) ending(ctx context.Context, id string) (bool, error) {
	request := kmsg.NewPtrDescribeTransactionsRequest()
	request.TransactionalIDs = []string{id}
	response, err := request.RequestWith(ctx, p.admin)
	if err != nil {
		return false, err
	}
	if len(response.TransactionStates) != 1 {
		return false, fmt.Errorf("described %d transactions instead of one", len(response.TransactionStates))
	}
	described := &response.TransactionStates[0]
	if err := kerr.ErrorForCode(described.ErrorCode); err != nil {
		return false, err
	}
	return described.State == "PrepareCommit", nil
}
