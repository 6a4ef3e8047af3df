package metrics

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// expect compares series of one scrape.
func (b *bench) expect(t *testing.T, want map[string]string) {
	t.Helper()
	for series, value := range want {
		if got := b.value(t, series); got != value {
			t.Errorf("%s: got %s, want %s", series, got, value)
		}
	}
}

func TestStatusAtScrape(t *testing.T) {
	const slot = `{slot="payments"}`
	t.Run("a halt names its reason", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateHalted, Cause: cdc.BadRow("no topic", "")}
		b.expect(t, map[string]string{
			`halted{reason="bad-row",slot="payments"}`:   "1",
			`halted{reason="slot-lost",slot="payments"}`: "0",
			`halted{reason="other",slot="payments"}`:     "0",
			`state{slot="payments",state="halted"}`:      "1",
			`state{slot="payments",state="streaming"}`:   "0",
		})
	})
	t.Run("a halt without a reason of the list is seen", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateHalted}
		b.expect(t, map[string]string{`halted{reason="other",slot="payments"}`: "1"})
	})
	t.Run("a cause that is retried is no halt", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateRetrying, Cause: cdc.BadRow("no topic", "")}
		b.expect(t, map[string]string{`halted{reason="bad-row",slot="payments"}`: "0"})
	})
	t.Run("lag is the age of the oldest owed row", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateStreaming, OwedRows: 1, OldestOwed: b.now.Add(-3 * time.Second), ServerClock: time.Second}
		b.expect(t, map[string]string{"replication_lag_seconds" + slot: "4"})
	})
	t.Run("lag is 0 while streaming with nothing owed", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateStreaming}
		b.expect(t, map[string]string{"replication_lag_seconds" + slot: "0"})
	})
	t.Run("lag grows while the relay that was caught up retries", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateRetrying, CaughtUpAt: b.now.Add(-7 * time.Second)}
		b.expect(t, map[string]string{"replication_lag_seconds" + slot: "7"})
	})
	t.Run("lag is not claimed by a process that never streamed", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateRetrying}
		b.expect(t, map[string]string{"replication_lag_seconds" + slot: "absent"})
	})
	t.Run("lag is not claimed by a standby that was active before", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateStandby, CaughtUpAt: b.now.Add(-time.Hour)}
		b.expect(t, map[string]string{"replication_lag_seconds" + slot: "absent"})
	})
	t.Run("distances of a standby are absent", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateStandby, RecordedLSN: 100}
		b.expect(t, map[string]string{
			"active" + slot:                          "0",
			"unrecorded_wal_bytes" + slot:            "absent",
			"unconfirmed_wal_bytes" + slot:           "absent",
			"last_recorded_timestamp_seconds" + slot: "absent",
			"last_step_timestamp_seconds" + slot:     "absent",
		})
	})
	t.Run("before the first acknowledgement nothing is said about it", func(t *testing.T) {
		b := newBench(t)
		b.status = cdc.Status{State: cdc.StateStreaming, Active: true, ReceivedLSN: 50, RecordedLSN: 100}
		b.expect(t, map[string]string{"unrecorded_wal_bytes" + slot: "0", "unconfirmed_wal_bytes" + slot: "absent"})
	})
}

func TestSlotAtScrape(t *testing.T) {
	const slot = `{slot="payments"}`
	t.Run("a slot that does not exist has no other values", func(t *testing.T) {
		b := newBench(t)
		b.stats = cdc.SlotStats{CurrentLSN: 100}
		b.expect(t, map[string]string{"slot_exists" + slot: "0", "slot_active" + slot: "absent", "slot_lag_bytes" + slot: "absent"})
	})
	t.Run("unlimited WAL and an unknown restart LSN are absent", func(t *testing.T) {
		b := newBench(t)
		b.stats = cdc.SlotStats{CurrentLSN: 100, Slot: &cdc.SlotFacts{ConfirmedFlush: 40, WALStatus: "lost"}}
		b.expect(t, map[string]string{
			"slot_active" + slot: "0", "slot_lag_bytes" + slot: "60",
			"slot_safe_wal_bytes" + slot: "absent", "slot_retained_wal_bytes" + slot: "absent", "slot_catalog_xmin_age" + slot: "absent",
			`slot_wal_status{slot="payments",status="lost"}`:     "1",
			`slot_wal_status{slot="payments",status="reserved"}`: "0",
		})
	})
	t.Run("marks that crossed are 0 apart", func(t *testing.T) {
		b := newBench(t)
		b.stats = cdc.SlotStats{CurrentLSN: 100, Slot: &cdc.SlotFacts{ConfirmedFlush: 101}}
		b.expect(t, map[string]string{"slot_lag_bytes" + slot: "0"})
	})
	t.Run("a look serves for a second, a failed one too", func(t *testing.T) {
		b := newBench(t)
		b.statsErr = errors.New("away")
		b.expect(t, map[string]string{"slot_exists" + slot: "absent"})
		b.statsErr = nil
		b.now = b.now.Add(slotLookAge - time.Millisecond)
		b.expect(t, map[string]string{"slot_exists" + slot: "absent", "slot_query_errors_total" + slot: "1", "slot_queries_total" + slot: "1"})
		b.now = b.now.Add(time.Millisecond)
		b.expect(t, map[string]string{"slot_exists" + slot: "0", "slot_query_errors_total" + slot: "1", "slot_queries_total" + slot: "2"})
		if b.looks != 2 {
			t.Errorf("got %d looks, want 2", b.looks)
		}
	})
	t.Run("simultaneous scrapes share a look", func(t *testing.T) {
		b := newBench(t)
		var scrapes sync.WaitGroup
		for range 8 {
			scrapes.Go(func() {
				if _, err := b.registry.Gather(); err != nil {
					t.Error(err)
				}
			})
		}
		scrapes.Wait()
		if b.looks != 1 {
			t.Errorf("got %d looks, want 1", b.looks)
		}
	})
}

func TestSlotLookIsBounded(t *testing.T) {
	m, err := New(Config{
		Registerer: prometheus.NewRegistry(), Slot: "payments", Status: func() cdc.Status { return cdc.Status{} },
		SlotStats: func(ctx context.Context) (cdc.SlotStats, error) {
			deadline, ok := ctx.Deadline()
			if left := time.Until(deadline); !ok || left > slotLookTimeout {
				t.Errorf("got %v to answer, want at most %v", left, slotLookTimeout)
			}
			return cdc.SlotStats{}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := m.lookAtSlot(); !ok {
		t.Error("the look failed")
	}
}

func TestWithoutSlotStats(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	if _, err := New(Config{Registerer: registry, Slot: "payments", Status: func() cdc.Status { return cdc.Status{} }}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), prefix+"slot_") {
			t.Errorf("%s is shown though nobody asks the slot", family.GetName())
		}
	}
	if len(families) == 0 {
		t.Error("nothing is shown")
	}
}
