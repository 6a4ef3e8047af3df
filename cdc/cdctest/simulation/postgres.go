package simulation

import "github.com/cdc-relay/cdc-relay/cdc"

// postgres is the server, with its one slot. Its zero value is not usable.
type postgres struct {
	up       bool
	shutdown bool // a fast shutdown waits for the walsender's client
	// incarnation changes when another history may follow: failover, restore.
	incarnation int32
	lineage     cdc.Lineage
	lossy       bool // the newest timeline began without what came last on the one before

	history []int32 // transactions that the server has, in commit order
	walEnd  cdc.LSN
	nextXID cdc.XID // the newest that was given out
	open    cdc.XID // given out, and not ended; 0: none

	slot        slot
	publication cdc.PublicationIdentity
	copy        backup
}

// slot is the row of pg_replication_slots. A crash takes confirmed back to
// persisted; a standby knows synced.
type slot struct {
	exists                       bool
	owner                        *connection // the walsender; nil: not active
	confirmed, persisted, synced cdc.LSN
}

// backup is a copy of the data directory that may be started instead.
type backup struct {
	taken     bool
	timeline  cdc.Timeline
	keep      int
	walEnd    cdc.LSN
	nextXID   cdc.XID
	confirmed cdc.LSN
}

func (p *postgres) timeline() cdc.Timeline { return p.lineage[len(p.lineage)-1].Timeline }

// facts are what one look over SQL finds.
func (w *World) facts(withLineage bool) cdc.SourceFacts {
	p := &w.pg
	facts := cdc.SourceFacts{
		SystemID: "7", ServerVersion: 170000, WALLevel: "logical", Timeline: p.timeline(), WALEnd: p.walEnd,
		Publication: &cdc.PublicationFacts{PublicationIdentity: p.publication, PublishesInsert: true}, Table: &w.table,
	}
	if withLineage {
		facts.Lineage = p.lineage
	}
	if p.slot.exists {
		facts.Slot = &cdc.SlotFacts{
			Name: "s", Plugin: "pgoutput", ConfirmedFlush: p.slot.confirmed, Active: p.slot.owner != nil, WALStatus: "reserved",
		}
	}
	return facts
}

// disconnect ends the walsender; what lies in the client's buffer stays there.
func (w *World) disconnect() {
	if c := w.pg.slot.owner; c != nil {
		c.serverOpen = false
		w.pg.slot.owner = nil
	}
}

func (w *World) crash() bool {
	p := &w.pg
	if !p.up {
		return false
	}
	w.disconnect()
	p.up, p.shutdown = false, false
	if p.slot.persisted < p.slot.confirmed {
		w.rare(RareSlotWentBack)
	}
	p.slot.confirmed, p.open = p.slot.persisted, 0
	if w.tracing {
		w.log("postgres: crash, slot is back at %s", p.slot.confirmed)
	}
	return true
}

// start brings a server up that crashed, and ends a fast shutdown by a restart.
func (w *World) start() bool {
	p := &w.pg
	switch {
	case p.shutdown:
		if p.slot.owner != nil && p.slot.confirmed < p.walEnd && !w.calm && w.pick(2) == 0 {
			return false // it still waits for its walsender
		}
		if p.slot.owner == nil || p.slot.confirmed >= p.walEnd {
			w.rare(RareShutdownSeen)
		}
		w.disconnect()
		p.slot.persisted, p.shutdown = p.slot.confirmed, false
		if w.tracing {
			w.log("postgres: shut down and started again, slot at %s", p.slot.confirmed)
		}
		return true
	case !p.up:
		p.up = true
		if w.tracing {
			w.log("postgres: up, slot at %s", p.slot.confirmed)
		}
		return true
	}
	return false
}

func (w *World) persist() bool {
	s := &w.pg.slot
	if w.pick(2) == 0 {
		s.persisted = s.confirmed
	} else {
		s.synced = s.confirmed
	}
	return true
}

// failover promotes a standby that lacks the newest lost transactions.
func (w *World) failover(lost int) bool {
	p := &w.pg
	if len(p.lineage) > 5 {
		return false
	}
	w.disconnect()
	keep := max(0, len(p.history)-lost)
	at, nextXID := p.walEnd, p.nextXID
	if lost > 0 {
		at, nextXID = w.endOf(keep)
		if keep < len(p.history) {
			at += cdc.LSN(w.pick(1+int((w.txs[p.history[keep]].commitLSN-at)/lsnUnit)) * lsnUnit)
		}
	}
	lineage := append(cdc.Lineage(nil), p.lineage...)
	if lost > 0 && len(lineage) > 1 && w.pick(4) == 3 {
		// This standby never followed the newest timeline.
		lineage = lineage[:len(lineage)-1]
		at = min(at, lineage[len(lineage)-1].Switch)
		for keep > 0 && w.txs[p.history[keep-1]].endLSN > at {
			keep--
		}
		_, nextXID = w.endOf(keep)
		w.forked = true
	}
	lineage[len(lineage)-1].Switch = at
	p.lineage = append(lineage, cdc.TimelineSpan{Timeline: p.timeline() + 1})
	p.lossy = keep < len(p.history)
	p.incarnation++
	p.up, p.shutdown = true, false
	w.abandon(keep, at, nextXID)
	if p.slot.synced < p.slot.confirmed {
		w.rare(RareSlotWentBack)
	}
	p.slot.confirmed = min(p.slot.synced, at)
	p.slot.persisted, p.slot.synced = p.slot.confirmed, p.slot.confirmed
	p.copy.taken = false
	if w.tracing {
		w.log("postgres: failover at %s to timeline %d, %d transactions kept, slot at %s", at, p.timeline(), keep, p.slot.confirmed)
	}
	return true
}

// endOf is the end of WAL behind the first keep transactions.
func (w *World) endOf(keep int) (cdc.LSN, cdc.XID) {
	if keep == 0 {
		return genesisLSN, genesisXID
	}
	last := &w.txs[w.pg.history[keep-1]]
	return last.endLSN, last.newestXID
}

// lookAtFloor is what the guard's look tells beside the publication.
func (w *World) lookAtFloor(c *connection) {
	oldest := w.pg.nextXID + 1
	if w.pg.open != 0 {
		oldest = w.pg.open
	}
	c.floor = cdc.FloorLook{XID: cdc.XID8(oldest), LSN: w.pg.walEnd, From: c.from}
	c.looked = true
}

// takeCopy copies the data directory.
func (w *World) takeCopy() bool {
	p := &w.pg
	p.copy = backup{taken: true, timeline: p.timeline(), keep: len(p.history), walEnd: p.walEnd, nextXID: p.nextXID, confirmed: p.slot.persisted}
	return true
}

// restore starts the copy in place of the server, on the same timeline.
func (w *World) restore() bool {
	p := &w.pg
	c := p.copy
	if !c.taken || c.timeline != p.timeline() || c.keep >= len(p.history) {
		return false
	}
	w.disconnect()
	p.incarnation++
	w.restored, w.restoredAt = true, c.walEnd
	w.recordedBeyond = w.recordedBeyond || w.newest.RecordedLSN > c.walEnd
	w.abandon(c.keep, c.walEnd, c.nextXID)
	p.slot.confirmed = c.confirmed
	p.slot.persisted, p.slot.synced = c.confirmed, c.confirmed
	p.up, p.shutdown = true, false
	if w.tracing {
		w.log("postgres: a copy from %s is started instead, %d transactions kept, slot at %s", c.walEnd, c.keep, c.confirmed)
	}
	return true
}

// alter changes the publication.
func (w *World) alter() bool {
	w.pg.publication.XMin++
	if w.tracing {
		w.log("postgres: publication altered")
	}
	return true
}

// advanceSlot is what an operator does by pg_replication_slot_advance.
func (w *World) advanceSlot() bool {
	s := &w.pg.slot
	if s.owner != nil || !w.pg.up || !s.exists || s.confirmed == w.pg.walEnd {
		return false
	}
	s.confirmed = w.pg.walEnd
	w.tampered = w.tampered || s.confirmed > w.newest.RecordedLSN
	if w.tracing {
		w.log("postgres: slot advanced to %s by somebody", s.confirmed)
	}
	return true
}

func (w *World) dropSlot() bool {
	s := &w.pg.slot
	if s.owner != nil || !w.pg.up || !s.exists {
		return false
	}
	s.exists = false
	if w.tracing {
		w.log("postgres: slot dropped by somebody")
	}
	return true
}
