package cdc

import "time"

// Reading says whether the next message of the stream may be given to Step.
// While it is false only the status is kept up: a row waits for room in the
// open batch, or for its topic.
func (r *Relay) Reading() bool {
	return r.phase == PhaseStreaming && r.stream.pending == nil && r.stream.blocked == nil
}

// NextWake is when Step wants a Tick at the latest.
func (r *Relay) NextWake(now time.Time) time.Time {
	next := now.Add(10 * time.Second) // whoever watches the loop must see it move
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	switch r.phase {
	case PhaseWaiting:
		sooner(r.wakeAt)
	case PhaseStreaming:
		if s := &r.stream; !r.busy && s.open.ready() {
			sooner(s.gather.until())
		}
		if s := &r.stream; s.progress.idle > s.progress.recorded && s.owed() == 0 && !s.transaction.open {
			sooner(s.recordedAt.Add(idleRecordEvery))
		}
	case PhaseDraining:
		sooner(r.drainBy)
	}
	if r.attached && r.phase != PhaseClosing {
		sooner(r.nextStatus)
	}
	return next
}

// Status is a picture of this moment.
func (r *Relay) Status(now time.Time) Status {
	status := Status{
		State: r.state, Since: r.since, Cause: r.cause, Mode: r.cfg.Mode,
		Record: r.kafka.Record, Position: r.recordedPosition(), MovedAt: now,
		WALPages: r.source.WALPages, CaughtUpAt: r.caughtUpAt, ServerClock: r.clock.offset,
	}
	switch {
	case r.cfg.Mode == AtLeastOnce:
		status.Record = nil // what stands in Kafka, if anything, is of another time
	case r.kafka.Record != nil:
		status.RecordedLSN = r.kafka.Record.RecordedLSN
	}
	if r.source.Slot != nil {
		status.SlotConfirmedLSN = r.source.Slot.ConfirmedFlush
	}
	if r.phase != PhaseStreaming && r.phase != PhaseDraining {
		return status
	}
	s := &r.stream
	status.Active = true
	status.RecordedLSN = s.progress.recorded
	status.ReceivedLSN = s.progress.received
	status.ConfirmedLSN = s.progress.confirmed
	status.OwedRows, status.OwedBytes = s.owed(), s.owedBytes()
	_, status.OldestOwed, _ = s.oldest()
	return status
}

// TakeCounts returns what was received since the last call.
func (r *Relay) TakeCounts() ReceivedCounts {
	counts := r.stream.counts
	r.stream.counts = ReceivedCounts{}
	return counts
}

func (s *streaming) owedBytes() int {
	n := s.open.bytes
	if s.pending != nil {
		n += s.pending.record.Bytes()
	}
	if s.inFlight != nil {
		n += s.inFlight.Bytes
	}
	return n
}
