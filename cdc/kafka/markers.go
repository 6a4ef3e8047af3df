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
)

// awaitMarkers waits until the coordinator has written the markers of the
// producer's last transaction, or for markersWritten. A transaction that begins
// earlier is held back by the broker, for 20 ms each time that it looks; and
// readers could see it in one partition before they see its predecessor in
// another. Not knowing is no error: the transaction is committed.
func (p *publisher) awaitMarkers(ctx context.Context, producer *producer) {
	if time.Now().Before(p.askMarkersAt) {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, producer.endedAt.Add(p.sink.markersWritten))
	defer cancel()
	// The first question comes a little before the answer can be expected.
	time.Sleep(time.Until(producer.endedAt.Add(p.markersTook * 3 / 4))) // too short to be worth a timer
	for ctx.Err() == nil {
		ending, err := p.ending(ctx, producer.id)
		switch {
		case err == nil && !ending:
			p.markersTook = time.Since(producer.endedAt)
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
