package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Monitor reads what metrics and status show about the slot, from any replica,
// over an ordinary session of its own. It connects when first asked and again
// after an error. Its methods may be called from any goroutine.
type Monitor struct {
	cfg  Config
	mu   sync.Mutex // guards conn, and is held during a query
	conn *connection
}

// NewMonitor checks the config and connects to nothing.
func NewMonitor(cfg Config) (*Monitor, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Monitor{cfg: cfg}, nil
}

// SlotStats returns the slot's row and the server's current LSN.
func (m *Monitor) SlotStats(ctx context.Context) (cdc.SlotStats, error) {
	var row struct {
		Current cdc.LSN   `json:"current"`
		Slot    *slotLook `json:"slot"`
		XMinAge *int64    `json:"catalog_xmin_age"`
	}
	// The whole row as JSON: columns that a version lacks are simply absent.
	text, err := m.text(ctx, `SELECT pg_catalog.json_build_object(
		'current', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END,
		'slot', (SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = `+quoteLiteral(m.cfg.Slot)+`),
		'catalog_xmin_age', (SELECT pg_catalog.age(s.catalog_xmin) FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = `+quoteLiteral(m.cfg.Slot)+`))`)
	if err != nil {
		return cdc.SlotStats{}, err
	}
	if err := json.Unmarshal([]byte(text), &row); err != nil {
		return cdc.SlotStats{}, fmt.Errorf("read slot statistics: %w", err)
	}
	stats := cdc.SlotStats{CurrentLSN: row.Current, CatalogXMinAge: row.XMinAge}
	if row.Slot != nil {
		stats.Slot, stats.SafeWALBytes = row.Slot.facts(), row.Slot.SafeWALBytes
	}
	return stats, nil
}

// ConfirmedFlush returns the slot's confirmed_flush_lsn; 0 when there is no slot.
func (m *Monitor) ConfirmedFlush(ctx context.Context) (cdc.LSN, error) {
	stats, err := m.SlotStats(ctx)
	if err != nil || stats.Slot == nil {
		return 0, err
	}
	return stats.Slot.ConfirmedFlush, nil
}

func (m *Monitor) text(ctx context.Context, sql string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for fresh := false; ; {
		if !m.conn.usable() {
			conn, err := m.cfg.connect(ctx, connectOptions{})
			if err != nil {
				return "", fmt.Errorf("read slot statistics: %w", err)
			}
			m.conn, fresh = conn, true
		}
		text, err := m.conn.text(ctx, "read slot statistics", sql)
		if err == nil || fresh || ctx.Err() != nil {
			return text, err
		}
		m.conn.close() // it may just be the server that was restarted
		m.conn = nil
	}
}

// Close ends the session; the Monitor is reusable after it.
func (m *Monitor) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.close()
		m.conn = nil
	}
}
