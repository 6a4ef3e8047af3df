package cdc

import (
	"fmt"
	"time"
)

// settle lets the open batch make whatever progress is possible: it takes in
// the pending row, hands a batch over as soon as the publisher is free, records
// idle progress, answers the server, and ends what is to end.
func (r *Relay) settle(eff *Effects, now time.Time) {
	if eff.Action != ActionNone {
		return
	}
	if r.phase == PhaseStreaming {
		r.takeInPending(eff, now)
	}
	s := &r.stream
	if !r.busy && r.phase != PhaseClosing {
		switch {
		case s.open.ready() && r.mayWait(now):
		case s.open.ready():
			r.handOver(eff, now)
		case r.phase == PhaseDraining:
			r.endDrain(eff, now)
		case s.blocked != nil:
			r.fail(s.blocked, eff)
		case r.idleRecordDue(now):
			r.handOver(eff, now)
		case s.target != 0 && s.progress.recorded >= s.target:
			r.endReading(nil, eff, now)
			r.endDrain(eff, now)
		}
	} else if r.phase == PhaseDraining && !now.Before(r.drainBy) {
		r.close(eff, r.ending)
	}
	if s.replyWanted && !eff.Status && r.attached && r.phase == PhaseStreaming {
		r.reply(eff, now)
	}
}

// takeInPending moves the pending row into the open batch, cutting the batch
// first when the row does not fit, or asks for its topic's facts.
func (r *Relay) takeInPending(eff *Effects, now time.Time) {
	s := &r.stream
	if s.pending == nil {
		return
	}
	record := &s.pending.record
	facts, known := r.topics[record.Topic]
	if !known {
		if !r.busy {
			r.busy = true
			eff.Action, eff.Topic = ActionTopic, record.Topic
		}
		return
	}
	if problem := checkRecord(s.pending, facts); problem != nil {
		r.parkOrBlock(problem)
		r.takeInPending(eff, now)
		return
	}
	record.Partition = PartitionFor(record.Placement, facts.Partitions)
	if !s.open.fits(record) {
		if r.busy {
			return
		}
		r.handOver(eff, now)
		if !s.open.fits(record) {
			return // what the last COMMIT left behind fills the batch; the next hand-over cuts it
		}
	}
	s.open.append(*record, markOf(&s.pending.row))
	s.pending = nil
}

// checkRecord refuses what the topic would refuse, before anything is produced.
func checkRecord(pending *pendingRow, facts TopicFacts) *Problem {
	record := &pending.record
	switch size := record.Bytes(); {
	case facts.MaxMessageBytes > 0 && size+batchOverheadBytes > facts.MaxMessageBytes:
		return BadRow(
			fmt.Sprintf("row %s (event %s) makes a record of about %d bytes, topic %q takes %d", pending.row.Position, pending.row.EventID, size, record.Topic, facts.MaxMessageBytes),
			fmt.Sprintf("raise max.message.bytes of topic %q and start again", record.Topic))
	case facts.Compacted && record.Key == nil:
		return BadRow(
			fmt.Sprintf("row %s (event %s) has a null key, topic %q is compacted", pending.row.Position, pending.row.EventID, record.Topic),
			"give the row a key (routing.key), or take compact out of the topic's cleanup.policy, and start again")
	}
	return nil
}

// batchOverheadBytes is the header of a record batch (KIP-98), which counts
// towards max.message.bytes.
const batchOverheadBytes = 128

func (r *Relay) topicRead(in Input, eff *Effects, now time.Time) {
	s := &r.stream
	if s.pending == nil || r.phase != PhaseStreaming {
		return
	}
	topic := s.pending.record.Topic
	if in.Err != nil {
		problem := r.judgeSetup(AsProblem(in.Err), &s.record)
		if problem.Treatment == Halt {
			r.parkOrBlock(problem)
		} else {
			r.endReading(problem, eff, now)
		}
		return
	}
	for _, pin := range s.pins {
		if pin.Topic == topic {
			if problem := CheckPin(pin, in.Topic); problem != nil {
				s.pending, s.blocked = nil, problem
				return
			}
			in.Topic.TopicPin = pin
			r.topics[topic] = in.Topic
			return
		}
	}
	s.pins = append(s.pins[:len(s.pins):len(s.pins)], in.Topic.TopicPin)
	s.newPin = true
	r.topics[topic] = in.Topic
}

// handOver gives the next batch, or a record of idle progress, to the publisher.
func (r *Relay) handOver(eff *Effects, now time.Time) {
	s := &r.stream
	batch, end := s.open.cut()
	next := s.record
	if end.last.Serial > 0 {
		next.LastRow = end.last.lastRow()
		next.Complete = false
	}
	if end.complete {
		next.Complete = true
		next.EndLSN = end.endLSN
	}
	next.IdleLSN = max(next.IdleLSN, s.progress.idle)
	next.RecordedLSN = max(next.RecordedLSN, end.endLSN, s.progress.idle)
	next.PublishedFloor = s.floors.proved(next.PublishedFloor, next.LastRow)
	r.sign(&next, now)
	batch.Position = &next
	if s.newPin {
		batch.Pins, s.newPin = s.pins, false
	}
	s.inFlight = batch
	s.gather.handedAt = now
	r.busy = true
	eff.Action, eff.Batch = ActionPublish, batch
}

// sign fills in what the record says about the stream and its writer.
func (r *Relay) sign(record *PositionRecord, now time.Time) {
	id := r.cfg.Identity
	record.Version, record.State, record.Mode = PositionRecordVersion, RecordRunning, r.cfg.Mode
	record.SystemID, record.Lineage = r.source.SystemID, r.source.Lineage
	record.Slot, record.TransactionalIDs = id.Slot, id.TransactionalIDs
	record.Publication, record.Table = r.source.Publication.PublicationIdentity, *r.source.Table
	record.KafkaClusterID = r.kafka.ClusterID
	record.RelayVersion, record.Host, record.At = id.RelayVersion, id.Host, r.clock.server(now)
}

// published takes the publisher's answer. Whatever is not a success leaves the
// outcome unknown: it is read from the position topic at the next start.
func (r *Relay) published(err error, eff *Effects, now time.Time) {
	s := &r.stream
	if err != nil {
		r.fail(AsProblem(err), eff)
		return
	}
	s.record = *s.inFlight.Position
	r.carried = r.carried || len(s.inFlight.Records) > 0
	r.kafka.Record = s.inFlight.Position
	s.progress.recordedTo(s.record.RecordedLSN)
	if n := len(s.inFlight.CommitTimes); n > 0 && s.record.Complete && s.inFlight.CommitTimes[n-1].After(r.caughtUpAt) {
		r.caughtUpAt = s.inFlight.CommitTimes[n-1]
	}
	s.open.recycle()
	s.inFlight, s.recordedAt = nil, now
	r.failures.reset()
	if r.eased++; r.limits != r.cfg.Limits && r.eased >= easeAfter {
		r.limits, r.eased = r.limits.doubled(r.cfg.Limits), 0
		s.open.limits = r.limits
	}
	r.statusBy(r.lastStatus.Add(progressStatus))
}

// idleRecordDue says whether progress without rows is to be recorded now.
func (r *Relay) idleRecordDue(now time.Time) bool {
	s := &r.stream
	if s.progress.held {
		return true
	}
	if s.transaction.open || s.owed() > 0 || s.witness != nil {
		return false
	}
	if s.progress.idle > s.progress.recorded {
		return s.replyWanted || s.target != 0 || now.Sub(s.recordedAt) >= idleRecordEvery
	}
	return r.cfg.Mode == ExactlyOnce && r.clock.server(now).Sub(s.record.At) >= quietRecordEvery
}

// reply answers the server's request: at once when there is progress to
// report or none to wait for, yet not more often than every 100 ms without.
func (r *Relay) reply(eff *Effects, now time.Time) {
	s := &r.stream
	next := s.nextConfirmed()
	waiting := s.inFlight != nil && s.owed() == 0 // an idle record is under way
	if next <= s.progress.confirmed && (waiting || now.Sub(r.lastStatus) < shutdownReply) {
		r.statusBy(r.lastStatus.Add(shutdownReply))
		return
	}
	s.replyWanted = false
	r.status(eff, now)
}
