package halts_test

import (
	"syscall"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// slotHalts: the slot is not what the relay left.
func slotHalts() []halt {
	const (
		drop    = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`
		advance = `SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())`
		create  = `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`
	)
	return []halt{
		{
			name: "dropped", reason: cdc.HaltSlotLost, want: []string{"slot"},
			spoil: func(t *testing.T, b *bed) { b.exec(t, drop, b.Slot) }, out: resynced,
		},
		{
			name: "dropped while running", reason: cdc.HaltSlotLost, running: true, want: []string{"slot"},
			spoil: func(t *testing.T, b *bed) { b.takeSlot(t, drop) }, out: resynced,
		},
		{
			name: "replaced by one of another plugin", reason: cdc.HaltSlotLost, want: []string{"test_decoding"},
			spoil: func(t *testing.T, b *bed) {
				b.exec(t, drop, b.Slot)
				b.exec(t, `SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, b.Slot)
			},
			out: func(t *testing.T, b *bed) {
				b.exec(t, drop, b.Slot)
				b.resync(t, 0)
			},
		},
		{
			name: "invalidated by max_slot_wal_keep_size", reason: cdc.HaltSlotLost, want: []string{"lost", "max_slot_wal_keep_size"},
			bed: func(t *testing.T) *bed {
				return newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB"}}))
			},
			spoil: invalidate, out: resyncedUnderLoad,
		},
		{
			name: "failover to a standby that had no slot", reason: cdc.HaltSlotLost, want: []string{"slot"},
			bed: func(t *testing.T) *bed { return newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{})) },
			spoil: func(t *testing.T, b *bed) {
				standby := b.startStandby(t, nil)
				b.awaitReplay(t, standby)
				b.Postgres.Stop(t, "immediate")
				b.promote(t, standby)
				b.exec(t, drop, b.Slot) // it had come along with the copy of the files
				b.write(t, 1)
			},
			out: resyncedUnderLoad,
		},
		{
			name: "invalidated under a paused relay", reason: cdc.HaltSlotLost, running: true, long: true, want: []string{"lost"},
			bed: func(t *testing.T) *bed {
				return newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{
					"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "wal_sender_timeout": "2s",
				}}))
			},
			spoil: func(t *testing.T, b *bed) {
				b.signal(t, syscall.SIGSTOP)
				invalidate(t, b)
				b.signal(t, syscall.SIGCONT)
			},
			out: resynced,
		},
		{
			name: "advanced by hand", reason: cdc.HaltSlotMoved, want: []string{"beyond the recorded"},
			spoil: func(t *testing.T, b *bed) { b.exec(t, advance, b.Slot) }, out: resynced,
		},
		{
			name: "advanced by hand while running", reason: cdc.HaltSlotMoved, running: true, want: []string{"beyond the recorded"},
			spoil: func(t *testing.T, b *bed) { b.takeSlot(t, advance) },
			out: func(t *testing.T, b *bed) {
				b.follow(t, "adopt --from-slot")
				b.repaired(t)
				b.requireOnce(t, nil)
			},
		},
		{
			name: "dropped and made again", reason: cdc.HaltSlotMoved, want: []string{"beyond the recorded"},
			spoil: func(t *testing.T, b *bed) {
				b.exec(t, drop, b.Slot)
				b.exec(t, create, b.Slot)
			},
			out: resynced,
		},
	}
}

// takeSlot ends the relay's session, lets rows be written and acts on the slot
// before the relay is back.
func (b *bed) takeSlot(t *testing.T, statement string) {
	t.Helper()
	eventually(t, "the slot is taken from the relay", func() bool {
		b.exec(t, `SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = $1 AND active`, b.Slot)
		b.write(t, 1)
		_, err := b.db.Exec(t.Context(), statement, b.Slot)
		return err == nil
	})
}

// signal reaches the relay that runs.
func (b *bed) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	b.relay.Signal(sig)
}

// invalidate writes WAL until the server has given the slot up.
func invalidate(t *testing.T, b *bed) {
	t.Helper()
	eventually(t, "the slot is lost", func() bool {
		b.write(t, 1)
		for range 3 {
			b.exec(t, `SELECT pg_switch_wal()`)
			b.exec(t, `SELECT pg_logical_emit_message(false, 'other', 'x')`)
		}
		b.exec(t, `CHECKPOINT`)
		return query(t, b.db, `SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1`, b.Slot) == "lost"
	})
}

// TestIdleSlotIsInvalidated: PostgreSQL 18 can give up a slot that nobody used
// for a while; the relay was away for longer.
func TestIdleSlotIsInvalidated(t *testing.T) {
	t.Parallel()
	h := halt{
		reason: cdc.HaltSlotLost, want: []string{"lost", "idle_timeout"},
		spoil: func(t *testing.T, b *bed) {
			eventually(t, "the slot is lost", func() bool {
				b.exec(t, `CHECKPOINT`)
				return query(t, b.db, `SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1`, b.Slot) == "lost"
			})
		},
	}
	h.atStart(t, newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{
		Major: 18, Settings: map[string]string{"idle_replication_slot_timeout": "2s"},
	})))
}
