package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	// slotLookAge is how long a look serves further scrapes.
	slotLookAge = time.Second
	// slotLookTimeout keeps a scrape well below Prometheus' 10 s.
	slotLookTimeout = 2 * time.Second
)

// slotLook is the last look at the slot.
type slotLook struct {
	mu sync.Mutex // held during a look: simultaneous scrapes share one query

	at    time.Time // of its end; zero before the first
	took  time.Duration
	stats cdc.SlotStats
	ok    bool
}

// walStatuses are the values of pg_replication_slots.wal_status.
func walStatuses() []string { return []string{"reserved", "extended", "unreserved", "lost"} }

func (m *Metrics) collectSlot(out output) {
	stats, took, ok := m.lookAtSlot()
	out.gauge(m.slotQueryDuration, took.Seconds())
	if !ok {
		return
	}
	slot := stats.Slot
	out.flag(m.slotExists, slot != nil)
	if slot == nil {
		return
	}
	out.flag(m.slotActive, slot.Active)
	for _, status := range walStatuses() {
		out.flag(m.slotWALStatus, slot.WALStatus == status, status)
	}
	if slot.ConfirmedFlush != 0 {
		out.gauge(m.slotLag, distance(stats.CurrentLSN, slot.ConfirmedFlush))
	}
	if slot.Restart != 0 {
		out.gauge(m.slotRetained, distance(stats.CurrentLSN, slot.Restart))
	}
	if stats.SafeWALBytes != nil {
		out.gauge(m.slotSafe, float64(*stats.SafeWALBytes))
	}
	if stats.CatalogXMinAge != nil {
		out.gauge(m.slotXMinAge, float64(*stats.CatalogXMinAge))
	}
}

// lookAtSlot returns the last look if it is fresh, a failed one too, so that a
// server in trouble is not asked more often.
func (m *Metrics) lookAtSlot() (stats cdc.SlotStats, took time.Duration, ok bool) {
	look := &m.slot
	look.mu.Lock()
	defer look.mu.Unlock()
	begin := m.cfg.Now()
	if !look.at.IsZero() && begin.Sub(look.at) < slotLookAge {
		return look.stats, look.took, look.ok
	}
	ctx, cancel := context.WithTimeout(context.Background(), slotLookTimeout)
	defer cancel()
	stats, err := m.cfg.SlotStats(ctx)
	m.slotQueries.WithLabelValues().Inc()
	if err != nil {
		m.slotQueryErrors.WithLabelValues().Inc()
	}
	look.at = m.cfg.Now()
	look.took, look.stats, look.ok = look.at.Sub(begin), stats, err == nil
	return look.stats, look.took, look.ok
}
