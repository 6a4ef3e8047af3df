package notifier

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// RepeatPolicy says what happens to an event that may have been posted.
type RepeatPolicy string

// The policies.
const (
	RepeatAtLeastOnce RepeatPolicy = "at_least_once" // post again, with a note in the message
	RepeatAtMostOnce  RepeatPolicy = "at_most_once"  // give up
)

// phase is how far an item is. Every phase may be repeated.
type phase uint8

const (
	phaseRead   phase = iota // nothing was done
	phaseClaim               // it has to be posted: claim it, then post it
	phaseBury                // claimed; write it to the dead letter topic
	phaseSettle              // decided; write the state to the inbox
	phaseDone
)

// item is one record on its way.
type item struct {
	record *kgo.Record
	phase  phase
	entry  *entry

	claim   claim
	redrive bool // a dead letter that is delivered again
	// poison is why the record can never be a message; nil if it can.
	poison *unreadable
	// final and result are known from phaseSettle on.
	final  inboxState
	result outcome
}

// delivery takes items from claim to settled. It is used by one goroutine at a
// time.
type delivery struct {
	inbox   *inbox
	slack   *slack
	to      *destination
	bury    func(ctx context.Context, it *item) error // writes the dead letter
	repeat  RepeatPolicy
	maxAge  time.Duration // 0: no limit
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time

	// failures of inbox and dead letter topic in a row, for the back-off.
	failures int
	// trouble is why nothing moves, for the status; nil while it does.
	trouble error
}

const (
	storeRetryMin = 100 * time.Millisecond
	storeRetryMax = 5 * time.Second
)

// step moves an item as far as it goes now. It returns 0 when the item is done,
// else how long to wait before the next step. It takes no longer than one post,
// one dead letter and a few statements.
func (d *delivery) step(ctx context.Context, it *item) (wait time.Duration) {
	for it.phase != phaseDone {
		var err error
		part := partInbox
		wait = 0
		switch it.phase {
		case phaseRead:
			err = d.read(ctx, it)
		case phaseClaim:
			wait, err = d.post(ctx, it)
		case phaseBury:
			part = partDeadLetters
			if err = d.bury(ctx, it); err == nil {
				d.metrics.deadLetters.WithLabelValues(it.poison.reason).Inc()
				it.final, it.result, it.phase = stateDead, outcomeDeadLettered, phaseSettle
			}
		case phaseSettle:
			err = d.settle(ctx, it)
		case phaseDone:
		}
		if err != nil {
			return d.failed(part, err)
		}
		d.failures = 0
		if wait > 0 {
			return wait
		}
	}
	d.trouble = nil
	return 0
}

// failed notes trouble of the inbox or the dead letter topic and says how long
// to wait.
func (d *delivery) failed(part string, err error) time.Duration {
	d.metrics.errors.WithLabelValues(part).Inc()
	if d.trouble == nil {
		d.log.Warn("notifier waits", keyReason, err)
	}
	d.trouble = err
	wait := min(storeRetryMax, storeRetryMin<<min(d.failures, 10))
	d.failures++
	return wait
}

// read decides what the record is.
func (d *delivery) read(ctx context.Context, it *item) error {
	var err error
	it.entry, err = readEntry(it.record)
	poison, isPoison := errors.AsType[*unreadable](err)
	if isPoison {
		return d.condemn(ctx, it, poison)
	}
	if errors.Is(err, event.ErrUnknownType) {
		d.done(it, outcomeUnknownType)
		return nil
	}
	if d.maxAge > 0 && !it.redrive && d.now().Sub(it.entry.time) > d.maxAge {
		filtered, err := d.inbox.filter(ctx, it.entry, it.record)
		if err != nil {
			return err
		}
		if filtered {
			d.done(it, outcomeFiltered)
			return nil
		}
		// It was known before: settled, or begun while it was young enough.
	}
	it.phase = phaseClaim
	return nil
}

// condemn claims a record that can never be a message, so that it is a dead
// letter once.
func (d *delivery) condemn(ctx context.Context, it *item, poison *unreadable) error {
	claimed, err := d.claimIt(ctx, it)
	if err != nil {
		return err
	}
	if !claimed {
		d.done(it, outcomeDuplicate)
		return nil
	}
	d.kill(it, poison)
	return nil
}

// kill sends a claimed item to the dead letters; one that is there already only
// gets its state back.
func (d *delivery) kill(it *item, poison *unreadable) {
	it.poison = poison
	d.log.Error("event can never be a message", keyReason, poison.reason, keyEvent, it.entry.idText,
		keyTopic, it.record.Topic, keyPartition, it.record.Partition, keyOffset, it.record.Offset)
	it.phase = phaseBury
	if it.redrive {
		it.final, it.result, it.phase = stateDead, outcomeDeadLettered, phaseSettle
	}
}

func (d *delivery) claimIt(ctx context.Context, it *item) (bool, error) {
	claim := d.inbox.claim
	if it.redrive {
		claim = d.inbox.claimDead
	}
	c, err := claim(ctx, it.entry, it.record)
	if err != nil || c == nil {
		return false, err
	}
	it.claim = *c
	return true, nil
}

// post claims and posts. The claim comes right before the post and is repeated
// with every attempt: a row that says waiting must never be one that is posted.
func (d *delivery) post(ctx context.Context, it *item) (time.Duration, error) {
	if wait := d.to.wait(d.now()); wait > 0 {
		return wait, nil
	}
	claimed, err := d.claimIt(ctx, it)
	if err != nil {
		return 0, err
	}
	if !claimed {
		d.done(it, outcomeDuplicate)
		return 0, nil
	}
	if it.claim.doubtful && d.repeat == RepeatAtMostOnce {
		it.final, it.result, it.phase = stateUnknown, outcomeGivenUp, phaseSettle
		return 0, nil
	}
	began := d.now()
	a := d.slack.post(ctx, newMessage(it.entry, messageOptions{possiblyRepeated: it.claim.doubtful, traceURL: d.slack.cfg.TraceURL}))
	before := d.to.paused
	d.to.answered(a, d.now())
	d.metrics.posted(a, d.now().Sub(began), d.to)
	d.logPause(before, a)
	return d.judge(ctx, it, a), nil
}

// judge draws the consequence of an answer for the item.
func (d *delivery) judge(ctx context.Context, it *item, a answer) time.Duration {
	switch a.verdict {
	case delivered:
		d.metrics.endToEnd.WithLabelValues(d.metrics.name).Observe(max(0, d.now().Sub(it.entry.time).Seconds()))
		if it.claim.doubtful {
			d.metrics.repeated.WithLabelValues(d.metrics.name).Inc()
		}
		it.final, it.result, it.phase = stateSent, outcomeDelivered, phaseSettle
	case rejected:
		d.kill(it, &unreadable{reason: reasonRejected, err: a.err})
	case uncertain:
		// The row stays sending: the next claim finds it doubtful.
		return max(d.to.wait(d.now()), time.Millisecond)
	default:
		if err := d.inbox.release(ctx, it.entry.id); err != nil {
			d.log.Debug("an attempt stays doubtful", keyEvent, it.entry.idText, keyReason, err)
		}
		return max(d.to.wait(d.now()), time.Millisecond)
	}
	return 0
}

// logPause tells a change of the destination once, not every attempt.
func (d *delivery) logPause(before string, a answer) {
	switch d.to.paused {
	case before:
	case "":
		d.log.Info("destination accepts messages again", keyDestination, d.slack.cfg.Destination)
	case pauseRefused:
		d.log.Error("destination refuses messages and is paused; records wait", keyDestination, d.slack.cfg.Destination, keyReason, a.err)
	default:
		d.log.Warn("destination is paused", keyDestination, d.slack.cfg.Destination, keyReason, a.err)
	}
}

func (d *delivery) settle(ctx context.Context, it *item) error {
	reason := ""
	if it.poison != nil {
		reason = it.poison.reason
	}
	if err := d.inbox.settle(ctx, it.entry.id, it.final, reason); err != nil {
		return err
	}
	d.done(it, it.result)
	return nil
}

func (d *delivery) done(it *item, result outcome) {
	it.result, it.phase = result, phaseDone
	d.metrics.decided(result)
}
