package simulation

import (
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Check is the name of one part of the promise. Names are stable: tests of
// mutants name the check that must catch them.
type Check string

// The checks. Each is made at the step that could break it.
const (
	// CheckPrefix: what read_committed consumers see in a partition is a prefix
	// of that partition's part of S.
	CheckPrefix Check = "prefix"
	// CheckNoDuplicate: no row is committed to Kafka twice.
	CheckNoDuplicate Check = "no-duplicate"
	// CheckAckAfterRecord: neither a status nor the slot goes beyond the recorded
	// LSN of the newest decided position record, nor goes before a record on
	// the server's timeline.
	CheckAckAfterRecord Check = "ack-after-record"
	// CheckAckReceived: a status is 0 or lies between the slot's confirmed_flush
	// at start and what was received on the connection, and never decreases.
	CheckAckReceived Check = "ack-received"
	// CheckNoLoss: no row below the slot's confirmed_flush, a status, or a
	// recorded LSN is missing in Kafka.
	CheckNoLoss Check = "no-loss"
	// CheckSlotBeforeID: ids are fenced only while this life holds the slot.
	CheckSlotBeforeID Check = "slot-before-id"
	// CheckFactsAfterLease: a life streams only by facts read after it attached
	// and by a position read after it fenced.
	CheckFactsAfterLease Check = "facts-after-lease"
	// CheckRecordedMonotone: position and recorded LSN of the decided records
	// never fall, but for the latter at a timeline switch.
	CheckRecordedMonotone Check = "recorded-monotone"
	// CheckRecordTrue: a record names the last row that was published.
	CheckRecordTrue Check = "record-true"
	// CheckPublishedFloor: no row is missing in Kafka whose transaction the floor of
	// a record covers, in any history that has the record's last row.
	CheckPublishedFloor Check = "published-floor"
	// CheckAtomic: a database transaction that fits into a batch is in one Kafka
	// transaction, and none is committed without a position record.
	CheckAtomic Check = "atomic"
	// CheckHaltLegitimate: a halt has a reason that the world really has.
	CheckHaltLegitimate Check = "halt-legitimate"
	// CheckMustHalt: nothing is acknowledged or published after the database lost
	// what was published, nor streamed from an altered publication.
	CheckMustHalt Check = "must-halt"
	// CheckOneAction: the worker has one action at a time.
	CheckOneAction Check = "one-action"
	// CheckNoPanic: the step function does not panic.
	CheckNoPanic Check = "no-panic"
	// CheckLiveness: when faults stop, everything committed becomes visible and is
	// acknowledged within a bounded number of steps.
	CheckLiveness Check = "liveness"
)

// Violation is the first broken check of a schedule.
type Violation struct {
	Check Check
	What  string
	Stack string // of a panic
}

func (v *Violation) String() string { return string(v.Check) + ": " + v.What }

func (w *World) violate(check Check, format string, args ...any) {
	if w.violation == nil {
		w.violation = &Violation{Check: check, What: fmt.Sprintf(format, args...)}
		if w.tracing {
			w.log("** %s", w.violation)
		}
	}
}

// checkVisible looks at the next record that consumers of a partition see.
func (w *World) checkVisible(part int, e int32) {
	ev := &w.events[e]
	switch p := &w.kafka.parts[part]; {
	case ev.visible:
		w.violate(CheckNoDuplicate, "event %d is visible twice in partition %d", e, part)
	case ev.ordinal != p.visible || int(ev.part) != part:
		w.violate(CheckPrefix, "event %d, number %d of partition %d, is visible in partition %d as number %d", e, ev.ordinal, ev.part, part, p.visible)
	}
	ev.visible = true
	w.stats.Records++
}

// checkCommitted looks at a transaction that was just decided to be committed.
func (w *World) checkCommitted(txn *kafkaTxn, number int32) {
	last, lost := int32(-1), w.phantoms
	for _, e := range txn.events[:txn.records] {
		ev := &w.events[e]
		tx := &w.txs[ev.tx]
		switch {
		case ev.decided:
			w.violate(CheckNoDuplicate, "event %d is committed twice", e)
		case ev.phantom:
			w.phantoms++
		case lost > 0:
			w.violate(CheckMustHalt, "event %d is published although %d published rows are lost", e, lost)
		}
		if !ev.decided {
			ev.decided = true
			tx.undecided--
		}
		if tx.kafkaTxn != number {
			tx.kafkaTxn, tx.inKafka = number, 0
		}
		tx.inKafka++
		last = max(last, e)
	}
	for _, e := range txn.events[:txn.records] {
		if tx := &w.txs[w.events[e].tx]; tx.fits && !w.halved && tx.inKafka != tx.rows {
			w.violate(CheckAtomic, "%d of the %d rows of xid %d are in one Kafka transaction, and all would fit", tx.inKafka, tx.rows, tx.xid)
		}
	}
	if txn.position == nil {
		w.violate(CheckAtomic, "a transaction with %d records is committed without a position record", txn.records)
		return
	}
	w.checkRecord(txn, last, lost)
}

// checkRecord compares the newest position record with the one before and with
// the truth; last is the last row of its transaction or -1, lost the number of
// rows that the database had lost before it.
func (w *World) checkRecord(txn *kafkaTxn, last int32, lost int) {
	before, record := w.newest, txn.position
	w.newest = record
	switched := len(record.Lineage) > len(before.Lineage)
	switch {
	case !follows(record.Lineage, before.Lineage):
		w.violate(CheckRecordedMonotone, "timelines %v follow %v", record.Lineage, before.Lineage)
	case switched && lost > 0 && !w.restored && txn.incarnation == w.pg.incarnation:
		w.violate(CheckMustHalt, "a record on timeline %d although %d published rows are lost", record.Timeline(), lost)
	case record.Position().Compare(before.Position()) < 0:
		w.violate(CheckRecordedMonotone, "position %s follows %s", record.Position(), before.Position())
	case record.RecordedLSN < before.RecordedLSN && !switched:
		w.violate(CheckRecordedMonotone, "recorded LSN %s follows %s on one timeline", record.RecordedLSN, before.RecordedLSN)
	}
	if last >= 0 {
		w.checkLastRow(record, last)
		w.checkAboveRecorded(txn, before, switched)
		if !record.Complete {
			w.rare(RareCutInside)
		}
	} else if record.Position().CommitLSN != before.Position().CommitLSN || record.Position().Serial != before.Position().Serial {
		w.violate(CheckRecordTrue, "position %s follows %s without a row", record.Position(), before.Position())
	}
	if w.restored && txn.incarnation != w.pg.incarnation && record.RecordedLSN > w.restoredAt {
		w.recordedBeyond = true
	}
	w.checkFloor(record)
	if txn.incarnation == w.pg.incarnation && !w.recordedBeyond {
		w.checkOwed(record.RecordedLSN, "the record says")
	}
	if switched && w.pg.lossy {
		w.rare(RareTimelineLoss)
	} else if switched {
		w.rare(RareTimelineNoLoss)
	}
}

// follows says whether a history of timelines goes on from an earlier one.
func follows(now, before cdc.Lineage) bool {
	if len(now) < len(before) {
		return false
	}
	last := len(before) - 1
	for i, span := range before[:last] {
		if now[i] != span {
			return false
		}
	}
	return now[last].Timeline == before[last].Timeline
}

// checkAboveRecorded: no row is published of which a record said that it was.
func (w *World) checkAboveRecorded(txn *kafkaTxn, before *cdc.PositionRecord, switched bool) {
	for _, e := range txn.events[:txn.records] {
		if tx := &w.txs[w.events[e].tx]; tx.commitLSN < before.RecordedLSN && !switched {
			w.violate(CheckMustHalt, "event %d of %s is published, and nothing before %s was owed", e, tx.commitLSN, before.RecordedLSN)
		}
	}
}

func (w *World) checkLastRow(record *cdc.PositionRecord, last int32) {
	tx := &w.txs[w.events[last].tx]
	row := record.LastRow
	switch {
	case row == nil || row.EventID != string(w.ids[last]) || row.Serial != w.events[last].serial || row.CommitLSN != tx.commitLSN || row.XID != tx.xid:
		w.violate(CheckRecordTrue, "the record names the row %v, the last one published is event %d", row, last)
	case record.Complete && record.EndLSN != tx.endLSN:
		w.violate(CheckRecordTrue, "the record ends at %s, its last transaction at %s", record.EndLSN, tx.endLSN)
	}
}

// nothingOwed says whether every row that the server has is in Kafka, and finds
// the first transaction of which one is not.
func (w *World) nothingOwed() bool {
	for w.owed < len(w.pg.history) && w.txs[w.pg.history[w.owed]].undecided == 0 {
		w.owed++
	}
	return w.owed == len(w.pg.history)
}

// checkOwed compares an LSN below which nothing may be missing with the truth.
func (w *World) checkOwed(lsn cdc.LSN, who string) {
	if w.nothingOwed() {
		return
	}
	if tx := &w.txs[w.pg.history[w.owed]]; tx.commitLSN < lsn {
		w.violate(CheckNoLoss, "%s %s, and the rows of xid %d at %s are not in Kafka", who, lsn, tx.xid, tx.commitLSN)
	}
}

// checkFloor looks for rows that a resync would leave out, and are missing.
func (w *World) checkFloor(record *cdc.PositionRecord) {
	floor, last := record.PublishedFloor, record.LastRow
	if floor == nil || w.events[eventOf([]byte(last.EventID))].phantom || w.nothingOwed() {
		return
	}
	for _, id := range w.pg.history[w.owed:] {
		tx := &w.txs[id]
		if xid := cdc.XID8(tx.xid); tx.undecided > 0 && xid >= floor.From && xid < floor.XID {
			w.violate(CheckPublishedFloor, "the record says that transactions from %d to below %d are in Kafka, and %d rows of xid %d at %s are not", floor.From, floor.XID, tx.undecided, xid, tx.commitLSN)
			return
		}
		if xid := cdc.XID8(tx.xid); tx.undecided > 0 && xid < floor.XID+4 {
			w.rare(RareFloorNear)
		}
	}
}

// checkAcknowledged looks at a status that is about to be sent.
func (w *World) checkAcknowledged(r *replica, c *connection, value cdc.LSN) {
	if value == 0 {
		return
	}
	switch {
	case value < c.acked:
		w.violate(CheckAckReceived, "%s acknowledges %s after %s", r.name, value, c.acked)
	case value > c.received:
		w.violate(CheckAckReceived, "%s acknowledges %s and has received up to %s", r.name, value, c.received)
	case value < c.started:
		w.violate(CheckAckReceived, "%s acknowledges %s, the slot stood at %s", r.name, value, c.started)
	}
	c.acked = value
	if !c.serverOpen {
		return // nobody hears it
	}
	if w.phantoms > 0 {
		w.violate(CheckMustHalt, "%s acknowledges %s although %d published rows are lost", r.name, value, w.phantoms)
	}
	w.checkRecorded(value, r.name+" acknowledges")
	w.checkOwed(value, r.name+" acknowledges")
}

func (w *World) checkRecorded(value cdc.LSN, who string) {
	switch {
	case value > w.newest.RecordedLSN:
		w.violate(CheckAckAfterRecord, "%s %s, recorded is %s", who, value, w.newest.RecordedLSN)
	case w.newest.Timeline() != w.pg.timeline():
		w.violate(CheckAckAfterRecord, "%s %s on timeline %d, the newest record is of %d", who, value, w.pg.timeline(), w.newest.Timeline())
	}
}

// checkConfirmed looks at the slot after a status has come.
func (w *World) checkConfirmed(value cdc.LSN) {
	w.checkRecorded(value, "the slot is confirmed at")
	w.checkOwed(value, "the slot is confirmed at")
}

// checkAction looks at what the worker is told to do.
func (w *World) checkAction(r *replica, eff *cdc.Effects) {
	if eff.Action != cdc.ActionClose && r.action != cdc.ActionNone {
		w.violate(CheckOneAction, "%s starts action %d while %d is with the worker", r.name, eff.Action, r.action)
	}
	switch eff.Action {
	case cdc.ActionOpen, cdc.ActionFacts:
		if r.conn == nil || r.lostTold {
			w.violate(CheckSlotBeforeID, "%s goes on to action %d without the slot", r.name, eff.Action)
		}
	case cdc.ActionPublish, cdc.ActionTopic:
		if r.publisher.number == 0 || !r.opened || !r.factsRead {
			w.violate(CheckFactsAfterLease, "%s publishes; ids fenced in this life: %t, facts read: %t", r.name, r.opened, r.factsRead)
		}
	}
}

// checkStreaming looks at a life that has decided to resume.
func (w *World) checkStreaming(r *replica) {
	switch {
	case r.conn == nil || !r.opened || !r.factsRead:
		w.violate(CheckFactsAfterLease, "%s streams; slot held: %t, ids fenced in this life: %t, facts read: %t", r.name, r.conn != nil, r.opened, r.factsRead)
	case r.seen != w.publication:
		w.violate(CheckMustHalt, "%s streams from an altered publication", r.name)
	case !r.switched && r.publisher.found.LastRow != nil && r.publisher.found.Complete && r.publisher.found.EndLSN > r.walEnd:
		w.violate(CheckMustHalt, "%s streams from a server whose WAL ends at %s, published is up to %s", r.name, r.walEnd, r.publisher.found.EndLSN)
	}
}

// checkHalt compares a halt's reason with the world.
func (w *World) checkHalt(r *replica, problem *cdc.Problem) {
	legitimate := false
	switch problem.Reason {
	case cdc.HaltDiverged:
		legitimate = w.phantoms > 0 || w.recordedBeyond || w.forked && !follows(w.pg.lineage, w.newest.Lineage)
		w.rare(RareHaltDiverged)
		switch {
		case w.forked && !follows(w.pg.lineage, w.newest.Lineage):
			w.rare(RareTimelineForked)
		case w.phantoms == 0:
			w.rare(RareNewRowBelowRecorded)
		}
	case cdc.HaltServerBehind:
		legitimate = w.phantoms > 0
		w.rare(RareHaltServerBehind)
	case cdc.HaltStreamChanged:
		legitimate = w.pg.publication != w.publication
		w.rare(RareHaltStreamChanged)
	case cdc.HaltSlotMoved:
		legitimate = w.tampered
		w.rare(RareHaltSlotMoved)
	case cdc.HaltSlotLost:
		legitimate = !w.pg.slot.exists
		w.rare(RareHaltSlotLost)
	}
	if !legitimate {
		w.violate(CheckHaltLegitimate, "%s halts: %s", r.name, problem)
	}
}
