package ledger

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// WaitSeen waits until the reader has seen n different events.
func (l *Ledger) WaitSeen(t testing.TB, n int, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.observer.Wait(ctx, func() bool { return l.observer.Count() >= n }); err != nil {
		t.Fatalf("%d events were seen within %s, want %d: %v", l.observer.Count(), patience, n, err)
	}
}

// Acknowledged says whether a sample shows that the slot was told lsn or more.
func (l *Ledger) Acknowledged(lsn cdc.LSN) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.acks, func(sample AckSample) bool { return sample.ConfirmedLSN >= lsn })
}

// RequireExact demands a report without violations about at least rows rows.
func (l *Ledger) RequireExact(t testing.TB, rows int) {
	t.Helper()
	report := l.Report(t)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	if report.Rows < rows || report.Batches == 0 {
		t.Fatalf("only %d rows in %d batches were checked, want %d rows", report.Rows, report.Batches, rows)
	}
}
