package cdc

import (
	"log/slog"
	"time"
)

// Keys of log attributes; the same fact has the same key everywhere.
const (
	keyState      = "state"
	keyFrom       = "from"
	keyReason     = "reason"
	keyWhat       = "what"
	keyWhy        = "why"
	keyFix        = "fix"
	keyCause      = "cause"
	keyTopic      = "topic"
	keySlot       = "slot"
	keyPosition   = "position"
	keyRecorded   = "recorded_lsn"
	keyRepeated   = "repeated"
	keyNextTry    = "next_try"
	repeatedEvery = time.Minute
)

// transitionLog writes one line per change that an operator would narrate, and
// folds a failure that repeats into a line a minute.
type transitionLog struct {
	logger   *slog.Logger
	lastWhat string
	lastAt   time.Time
	folded   int
}

func (l *transitionLog) transition(t *Transition, relay *Relay, now time.Time) {
	attrs := []any{keyState, string(t.To), keySlot, relay.cfg.Identity.Slot}
	if t.Cause == nil {
		l.lastWhat = ""
		l.logger.Info(string(t.To), append(attrs, keyFrom, string(t.From), keyPosition, relay.recordedPosition(), keyRecorded, relay.Status(now).RecordedLSN)...)
		return
	}
	if t.Cause.What == l.lastWhat && t.From == t.To && now.Sub(l.lastAt) < repeatedEvery {
		l.folded++
		return
	}
	attrs = append(attrs, keyWhat, t.Cause.What)
	for _, a := range []struct{ key, value string }{{keyReason, string(t.Cause.Reason)}, {keyWhy, t.Cause.Why}, {keyFix, t.Cause.Fix}} {
		if a.value != "" {
			attrs = append(attrs, a.key, a.value)
		}
	}
	if t.Cause.Err != nil {
		attrs = append(attrs, keyCause, t.Cause.Err.Error())
	}
	if l.folded > 0 {
		attrs = append(attrs, keyRepeated, l.folded)
	}
	if t.To == StateHalted {
		l.logger.Error(string(t.To), append(attrs, keyPosition, relay.recordedPosition())...)
	} else {
		l.logger.Warn(string(t.To), append(attrs, keyNextTry, time.Until(relay.wakeAt).Round(time.Millisecond).String())...)
	}
	l.lastWhat, l.lastAt, l.folded = t.Cause.What, now, 0
}

// parked tells of each row that a committed batch parked: whoever looks for an
// event that never came finds it by its position.
func (l *transitionLog) parked(batch *Batch) {
	for i := range batch.Records {
		if record := &batch.Records[i]; record.Parked != "" {
			l.logger.Warn("row parked", keyPosition, record.Position, keyTopic, string(record.Topic), keyWhat, record.Parked)
		}
	}
}
