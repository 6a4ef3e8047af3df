package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// adoptNewSystem keeps a slot that the new server has already, by pg_upgrade or
// made by hand, if it is proved that Kafka misses what the slot sends and nothing
// else. Any other one is made anew, which only works before the writers begin.
func (m *commander) adoptNewSystem(ctx context.Context) error {
	sound, err := m.mayKeepSlot(ctx)
	if err != nil {
		return err
	}
	if sound {
		err = m.hold(ctx, func(ctx context.Context, l *lease) error {
			sound, err = m.keepSlot(ctx, l)
			return err
		})
		if err != nil || sound {
			return err
		}
	}
	return m.adoptSystem(ctx)
}

// mayKeepSlot says whether there is a slot to keep, and no finding but the other
// server. What else is found, adoptSystem says.
func (m *commander) mayKeepSlot(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	facts, err := m.source.Inspect(ctx)
	if err != nil {
		return false, err
	}
	advised, err := m.sink.Advise(ctx)
	if err != nil {
		return false, err
	}
	return otherServerOnly(advised, facts) != nil, nil
}

// otherServerOnly returns the finding that another server is there, if a start
// would find nothing else when the record were of that server.
func otherServerOnly(kafka cdc.KafkaFacts, source cdc.SourceFacts) *cdc.Problem {
	finding := cdc.DecideIdentity(kafka, source, cdc.ExactlyOnce)
	if finding == nil || finding.Reason != cdc.HaltOtherDatabase {
		return nil
	}
	record := *kafka.Record
	record.SystemID = source.SystemID
	kafka.Record = &record
	further := cdc.DecideIdentity(kafka, source, cdc.ExactlyOnce)
	if further == nil && source.Publication != nil && source.Table != nil {
		return finding
	}
	return nil
}

// keepSlot adopts the server with its slot, or returns false where the slot is
// not proved sound; nothing has changed then.
//
// The proof: every row that the outbox shows and Kafka has not must come through
// the slot, else it would be lost; and no row that comes through the slot may be
// in Kafka, else it would come twice.
func (m *commander) keepSlot(ctx context.Context, l *lease) (bool, error) {
	finding := otherServerOnly(l.kafka, l.source)
	if finding == nil {
		return false, nil
	}
	scan, err := postgres.OpenOutboxScan(ctx, auditPostgresConfig(m.c))
	if err != nil {
		return false, err
	}
	defer scan.Close()
	if same, err := m.scansServerOf(ctx, l); err != nil || !same {
		return false, err
	}
	// All that the snapshot shows was committed below its InsertLSN.
	sends, err := readSlot(ctx, l, scan.InsertLSN())
	if err != nil || sends == nil {
		return false, err
	}
	r := &resync{commander: m, options: &resyncOptions{}, publishesNothing: true, observe: func(audit.Progress) {}}
	found, err := r.compare(ctx, scan)
	if err != nil {
		return false, err
	}
	if found.refusal(r.options) != nil || !sends.explain(found.missing, l.source.WALEnd) {
		return false, nil
	}
	at := l.source.Slot.ConfirmedFlush
	begun, pins := cdc.BeginResync(l.kafka, l.source, found.generation)
	ended, problem := cdc.EndResync(begun, l.source, at)
	if problem != nil {
		return false, problem
	}
	m.report.Reason, m.report.Finding = finding.Reason, finding.What
	m.report.Does = []string{
		fmt.Sprintf("keeps slot %q, which stands at %s, and goes on there with a generation of its own", m.c.Postgres.Slot, at),
		fmt.Sprintf("leaves %d rows that are not in Kafka to the slot, which sends them", len(found.missing)),
	}
	if !m.report.Confirmed {
		return true, nil
	}
	return true, m.commit(ctx, l.publisher, ended, pins, l.kafka.Record)
}

// scansServerOf says whether postgres.audit_dsn leads to the server of the lease
// and not, for example, to the one from before the upgrade: only there the slot
// is held by the lease's own walsender.
func (m *commander) scansServerOf(ctx context.Context, l *lease) (bool, error) {
	monitor, err := postgres.NewMonitor(auditPostgresConfig(m.c))
	if err != nil {
		return false, err
	}
	defer monitor.Close()
	stats, err := monitor.SlotStats(ctx)
	if err != nil || stats.Slot == nil {
		return false, err
	}
	held := l.source.Slot
	return stats.Slot.ActivePID == held.ActivePID && stats.Slot.ConfirmedFlush == held.ConfirmedFlush, nil
}

// slotRows are the rows that a slot sends, with their commit LSNs.
type slotRows map[audit.ID]cdc.LSN

// maxKeptRows bounds the memory for the rows of a slot, 24 bytes each and those
// of the map.
const maxKeptRows = 1_000_000

// explain says whether the rows that Kafka has not are those that the slot sends.
// Rows committed at looked, which was the end of the WAL before the snapshot was
// taken, or behind it may be newer than the snapshot; nobody can have published
// them.
func (s slotRows) explain(missing []missingRow, looked cdc.LSN) bool {
	older := map[audit.ID]bool{}
	for id, at := range s {
		if at < looked {
			older[id] = true
		}
	}
	for _, row := range missing {
		if _, sent := s[row.id]; !sent {
			return false
		}
		delete(older, row.id)
	}
	return len(older) == 0
}

// readSlot reads what the slot sends, up to an LSN, and acknowledges nothing. Nil
// without an error: what it sends cannot be told, for there is too much of it, it
// cannot be decoded, or ids are no UUIDs.
func readSlot(ctx context.Context, l *lease, upTo cdc.LSN) (slotRows, error) {
	l.letGo() // the heartbeat would write on the connection as well
	defer func() { l.letGo = heartbeat(l.stream) }()
	rows := slotRows{}
	var received, commit cdc.LSN
	var asked time.Time
	for received < upTo || commit != 0 {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if now := time.Now(); now.Sub(asked) >= time.Second {
			if err := l.stream.Status(0, true); err != nil {
				return nil, err
			}
			asked = now
		}
		message, err := l.stream.Receive(asked.Add(time.Second))
		if err != nil {
			return nil, nil // the slot is made anew then
		}
		if message == nil {
			continue
		}
		switch message.Kind {
		case cdc.MessageBegin:
			commit = message.CommitLSN
		case cdc.MessageInsert:
			id, err := audit.ParseID(message.Row.EventID)
			if err != nil || len(rows) == maxKeptRows {
				return nil, nil // likewise
			}
			rows[id] = commit
		case cdc.MessageCommit:
			commit, received = 0, max(received, message.EndLSN)
		case cdc.MessageKeepalive:
			received = max(received, message.WALEnd)
		case cdc.MessageIgnored:
		}
	}
	return rows, nil
}
