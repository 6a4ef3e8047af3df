package postgres

import (
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMonitorReadsTheSlotAndReconnects(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	m, err := NewMonitor(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	stats, err := m.SlotStats(t.Context())
	if err != nil || stats.Slot == nil || stats.CurrentLSN < stats.Slot.ConfirmedFlush || stats.Slot.ConfirmedFlush == 0 || stats.Slot.WALStatus != "reserved" {
		t.Fatalf("%+v, %v", stats, err)
	}
	f.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay_under_test' AND datname = $1`, f.database)
	if confirmed, err := m.ConfirmedFlush(t.Context()); err != nil || confirmed != stats.Slot.ConfirmedFlush {
		t.Errorf("after its session was ended: %s, %v", confirmed, err)
	}
	f.exec(t, `SELECT pg_drop_replication_slot('`+f.cfg.Slot+`')`)
	if stats, err := m.SlotStats(t.Context()); err != nil || stats.Slot != nil || stats.CurrentLSN == 0 {
		t.Errorf("without a slot: %+v, %v", stats, err)
	}
	m.Close()
	if confirmed, err := m.ConfirmedFlush(t.Context()); err != nil || confirmed != 0 {
		t.Errorf("after Close: %s, %v", confirmed, err)
	}
}
