package cdc

import (
	"fmt"
	"time"
)

// streaming is the state of one life between the decision to resume and the
// end of the stream.
type streaming struct {
	progress Progress
	open     assembly
	resume   Resume

	record PositionRecord // the newest committed one, or what it was read as
	pins   []TopicPin     // of record
	newPin bool           // pins grew since the last record

	transaction transaction
	witness     *LastRow // still to be seen; nil when disarmed

	pending *pendingRow // decoded and not yet in the open batch; reading waits for it
	room    pendingRow  // what pending points to
	blocked *Problem    // halts the relay when everything before the row that it was found at is published

	inFlight *Batch // with the publisher

	gather gathering
	floors floors

	recordedAt  time.Time // when the last record was committed, or streaming began
	replyWanted bool      // the server asked, the answer waits for progress
	shutdown    shutdownSigns
	heardAt     time.Time // when the last message arrived
	target      LSN       // --once ends here; 0: never
	counts      ReceivedCounts
}

// transaction is the database transaction being received.
type transaction struct {
	open       bool
	commitLSN  LSN
	commitTime time.Time
	xid        XID
	serial     uint32 // of the last row received
	fresh      bool   // it has a row that the recorded position does not cover
}

// pendingRow is a row with the record that it becomes.
type pendingRow struct {
	record Record
	row    Row
}

func newStreaming(r *Relay, resume Resume, now time.Time) streaming {
	s := streaming{
		progress: newProgress(resume, r.source.Slot.ConfirmedFlush),
		open:     newAssembly(r.limits),
		resume:   resume,
		record:   r.recordBefore(),
		pins:     r.kafka.Pins,
		witness:  resume.Witness,

		recordedAt: now, heardAt: now,
	}
	s.record.RecordedLSN = resume.RecordedLSN
	if r.cfg.Once {
		s.target = r.source.WALEnd
	}
	return s
}

// recordBefore is what the next record goes on from. In mode at-least-once
// records are made too, as the memory of one process; they never get into Kafka,
// and what Kafka has from another time says nothing about the present.
func (r *Relay) recordBefore() PositionRecord {
	switch record := r.kafka.Record; {
	case r.cfg.Mode == ExactlyOnce:
		return *record
	case record != nil:
		return PositionRecord{Generation: record.Generation, Complete: true}
	}
	return PositionRecord{Generation: 1, Complete: true}
}

// receive takes one message of the stream.
func (r *Relay) receive(m *Message, eff *Effects, now time.Time) {
	s := &r.stream
	s.heardAt = now
	if m.Floor != nil {
		s.floors.note(*m.Floor)
	}
	var problem *Problem
	switch m.Kind {
	case MessageBegin:
		if !r.clock.known {
			r.clock.note(m.ServerTime, now)
		}
		s.gather.note(m)
		problem = s.begin(m)
	case MessageInsert:
		problem = r.insert(m, now)
	case MessageCommit:
		problem = s.commit(m)
	case MessageKeepalive:
		problem = r.keepalive(m, eff, now)
	case MessageIgnored:
		s.counts.Ignored++
	default:
		panic(fmt.Sprintf("message kind %d", m.Kind))
	}
	if problem != nil {
		r.endReading(problem, eff, now)
	}
}

func (s *streaming) begin(m *Message) *Problem {
	if s.transaction.open {
		return undecodable("BEGIN at %s inside the transaction at %s", m.CommitLSN, s.transaction.commitLSN)
	}
	s.transaction = transaction{open: true, commitLSN: m.CommitLSN, commitTime: m.CommitTime, xid: m.XID}
	if w := s.witness; w != nil && m.CommitLSN > w.CommitLSN {
		return s.diverged("the server sent the commit at %s without the recorded one at %s before it", m.CommitLSN, w.CommitLSN)
	}
	return nil
}

// insert numbers a row, skips it if the recorded position covers it, and else
// makes it the pending one; settle puts it into the open batch.
func (r *Relay) insert(m *Message, now time.Time) *Problem {
	s, row := &r.stream, &m.Row
	if problem := s.number(row, r.source.Timeline); problem != nil {
		return problem
	}
	s.counts.Rows++
	s.counts.Bytes += uint64(row.Bytes())
	switch undecided, problem := s.undecided(row); {
	case problem != nil:
		return problem
	case !undecided:
		s.counts.SkippedRows++
		return nil
	}
	s.transaction.fresh = true
	record, err := r.cfg.Router.Route(row)
	s.room = pendingRow{record: record, row: *row}
	if err != nil {
		if problem := r.badRow(row, err); !r.park(&s.room, problem) {
			s.blocked = r.offerSkip(problem, row)
			return nil
		}
	}
	s.pending = &s.room
	s.room.record.Position = row.Position
	if present := r.clock.server(now); present.Sub(s.room.record.Timestamp) > time.Hour {
		s.room.record.Timestamp = present // an old one, or none, would meet the broker's limits, or retention at once
	}
	return nil
}

func (r *Relay) badRow(row *Row, err error) *Problem {
	problem := *AsProblem(err)
	if problem.Treatment != Halt {
		problem = Problem{Treatment: Halt, Reason: HaltBadRow, What: fmt.Sprintf("row %s (event %s): %s", row.Position, row.EventID, problem.What), Fix: problem.Fix}
	}
	return &problem
}

// number gives a received row its place in the history.
func (s *streaming) number(row *Row, timeline Timeline) *Problem {
	t := &s.transaction
	if !t.open {
		return undecodable("a row outside of a transaction after %s", s.progress.received)
	}
	t.serial++
	row.Position = Position{Generation: s.record.Generation, Timeline: timeline, CommitLSN: t.commitLSN, Serial: t.serial}
	row.XID, row.CommitTime = t.xid, t.commitTime
	return nil
}

// undecided says whether the recorded position does not cover the row.
func (s *streaming) undecided(row *Row) (bool, *Problem) {
	if problem := s.testify(row); problem != nil {
		return false, problem
	}
	if covered := s.resume.Through; row.CommitLSN < covered.CommitLSN || (row.CommitLSN == covered.CommitLSN && row.Serial <= covered.Serial) {
		return false, nil
	}
	if row.CommitLSN < s.record.RecordedLSN {
		return false, s.diverged("a row of the commit at %s is new, yet Kafka has everything before %s", row.CommitLSN, s.record.RecordedLSN)
	}
	return true, nil
}

// testify compares a re-sent row with the recorded one.
func (s *streaming) testify(row *Row) *Problem {
	w := s.witness
	if w == nil || row.CommitLSN != w.CommitLSN || row.Serial != w.Serial {
		return nil
	}
	if string(row.EventID) != w.EventID || row.XID != w.XID {
		return s.diverged("row %s is event %s of transaction %d, recorded was event %s of transaction %d",
			row.Position, row.EventID, row.XID, w.EventID, w.XID)
	}
	s.witness = nil
	return nil
}

func (s *streaming) commit(m *Message) *Problem {
	t := &s.transaction
	if !t.open || m.CommitLSN != t.commitLSN || m.EndLSN <= m.CommitLSN {
		return undecodable("COMMIT at %s, end %s, does not end the transaction at %s", m.CommitLSN, m.EndLSN, t.commitLSN)
	}
	if w := s.witness; w != nil && m.CommitLSN >= w.CommitLSN {
		return s.diverged("the commit at %s came with %d rows, recorded was its row %d", m.CommitLSN, t.serial, w.Serial)
	}
	t.open = false
	s.progress.receivedTo(m.EndLSN)
	switch last := s.record.LastRow; {
	case t.fresh:
		s.counts.Transactions++
		s.open.commit(m.EndLSN)
	case t.serial == 0:
		s.progress.idleTo(m.EndLSN)
	case last != nil && !s.record.Complete && last.CommitLSN == m.CommitLSN:
		s.open.commit(m.EndLSN) // it had been cut behind its very last row
	}
	return nil
}

// passed finds that the server sent everything up to its WAL's end, and not the
// witness.
func (s *streaming) passed(walEnd LSN) *Problem {
	if w := s.witness; w != nil && walEnd > w.CommitLSN {
		return s.diverged("the server's WAL went on to %s without the recorded commit at %s", walEnd, w.CommitLSN)
	}
	return nil
}

func (r *Relay) keepalive(m *Message, eff *Effects, now time.Time) *Problem {
	s := &r.stream
	r.clock.note(m.ServerTime, now)
	if !s.transaction.open {
		if problem := s.passed(m.WALEnd); problem != nil {
			return problem
		}
		s.progress.receivedTo(m.WALEnd)
		s.progress.idleTo(m.WALEnd)
		if s.owed() == 0 && !m.ServerTime.IsZero() {
			r.caughtUpAt = m.ServerTime
		}
	}
	if !m.ReplyRequested {
		return nil
	}
	s.replyWanted = true
	if s.shutdown.seen(m.WALEnd, r.lastStatus, now) {
		r.endReading(&Problem{What: "the server is shutting down", Why: "it asks for the end of what it sent again and again", Fix: "none needed; streaming goes on when it is back"}, eff, now)
		r.drainBy = now.Add(min(r.cfg.DrainTimeout, shutdownDrain))
	}
	return nil
}

// owed counts the rows that were received and are not recorded.
func (s *streaming) owed() int {
	n := len(s.open.records)
	if s.pending != nil {
		n++
	}
	if s.inFlight != nil {
		n += len(s.inFlight.Records)
	}
	return n
}

// oldest is the first owed row's commit LSN and time; false when none is owed.
func (s *streaming) oldest() (LSN, time.Time, bool) {
	switch {
	case s.inFlight != nil && len(s.inFlight.Records) > 0:
		return s.inFlight.Records[0].Position.CommitLSN, s.inFlight.OldestCommit, true
	case len(s.open.records) > 0:
		return s.open.records[0].Position.CommitLSN, s.open.commitTimes[0], true
	case s.pending != nil:
		return s.pending.row.CommitLSN, s.pending.row.CommitTime, true
	}
	return 0, time.Time{}, false
}

func (s *streaming) owedFrom() LSN {
	lsn, _, _ := s.oldest()
	return lsn
}

// nextConfirmed is the value of the next status. While the witness is still to
// be seen it is 0: in a restored copy, rows that the record covers by position
// may be others than those that Kafka has, and the slot must be able to send
// them again.
func (s *streaming) nextConfirmed() LSN {
	if s.witness != nil {
		return 0
	}
	return s.progress.nextConfirmed(s.owedFrom())
}

func (s *streaming) diverged(format string, args ...any) *Problem {
	return halt(HaltDiverged, fmt.Sprintf(format, args...),
		"the database continues another history than the one that was published, as after a restore of an older copy", FixResync)
}

func undecodable(format string, args ...any) *Problem {
	return &Problem{Treatment: Undecodable, What: fmt.Sprintf(format, args...), Why: "the stream does not follow the protocol"}
}
