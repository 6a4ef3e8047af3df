package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// published waits until everything committed up to lsn is decided in Kafka, and
// says whether that came within the timeout. The running relay knows it at once;
// else the slot tells it, later: what it has confirmed is recorded.
func (a *auditor) published(ctx context.Context, lsn cdc.LSN) (bool, error) {
	monitor, err := postgres.NewMonitor(a.postgres)
	if err != nil {
		return false, err
	}
	defer monitor.Close()
	for deadline := time.Now().Add(a.timeout); ; {
		if a.relayPublished(ctx, lsn) {
			return true, nil
		}
		confirmed, err := monitor.ConfirmedFlush(ctx)
		if err != nil {
			return false, err
		}
		if confirmed >= lsn {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("wait until %s is published: %w", lsn, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// relayPublished asks the relay's admin port, where this relay answers there.
func (a *auditor) relayPublished(ctx context.Context, lsn cdc.LSN) bool {
	report, err := relayReport(ctx, a.addr)
	if err != nil || report.Relay != a.c.Relay || report.Slot == nil || report.Slot.Name != a.c.Postgres.Slot {
		return false
	}
	answer, err := askPublished(ctx, a.addr, lsn, 0)
	return err == nil && answer.Published
}

// running refuses to publish beside a resync, which publishes the same rows. It
// is asked after the backfill's id was fenced: a resync that begins later fences
// that id again.
func (a *auditor) running(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	facts, err := a.sink.Advise(ctx)
	if err != nil {
		return err
	}
	if facts.Record != nil && facts.Record.State == cdc.RecordResyncing {
		return &cdc.Problem{What: "a resync has begun and has not finished", Why: "it publishes what is missing itself", Fix: "let it finish; if nobody runs it: " + cdc.FixResync}
	}
	return nil
}
