package notifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// redriveLock is the advisory lock of the one redrive that runs at a time.
const redriveLock = 0x6e6f7472

// ErrRedriveRunning is what Redrive returns while another one runs.
var ErrRedriveRunning = errors.New("another redrive is running")

// errDestination ends a redrive: the next message would fare no better.
var errDestination = errors.New("the destination refuses messages")

// DeadLetters reads the dead letter topic, oldest first.
func (n *Notifier) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	letters, err := n.cfg.Kafka.readDeadLetters(ctx, n.log)
	if err != nil || len(letters) == 0 {
		return nil, err
	}
	ids := make([]uuid.UUID, len(letters))
	for i := range letters {
		ids[i] = letters[i].id
	}
	states, err := n.inbox.states(ctx, ids)
	if err != nil {
		return nil, err
	}
	for i := range letters {
		letters[i].State = "absent"
		if state, ok := states[letters[i].id]; ok {
			letters[i].State = string(state)
		}
	}
	return letters, nil
}

// Redrive delivers dead letters again, straight to the destination and not
// through the topic, where other consumers would see them too. An event that was
// delivered meanwhile is not posted again. report is called for each letter with
// its outcome: delivered, duplicate, dead_lettered (it stays dead) and so on. It
// returns early when ctx ends or the destination refuses.
func (n *Notifier) Redrive(ctx context.Context, letters []DeadLetter, report func(letter DeadLetter, outcome string)) error {
	conn, err := n.cfg.Pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("lock redrive: %w", err)
	}
	defer conn.Release()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, redriveLock).Scan(&locked); err != nil {
		return fmt.Errorf("lock redrive: %w", err)
	}
	if !locked {
		return ErrRedriveRunning
	}
	defer func() {
		// A connection that cannot unlock is closed by the pool, which unlocks.
		_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, redriveLock)
	}()
	d := n.newDelivery(newMetrics(n.cfg.Slack.Destination)) // counted by nobody: run's metrics are run's
	defer d.slack.close()
	for i := range letters {
		it := &item{record: letters[i].Record, redrive: true}
		if err := d.redrive(ctx, it); err != nil {
			return fmt.Errorf("redrive event %s: %w", letters[i].EventID, err)
		}
		report(letters[i], string(it.result))
	}
	return nil
}

func (d *delivery) redrive(ctx context.Context, it *item) error {
	for {
		wait := d.step(context.WithoutCancel(ctx), it)
		if it.phase == phaseDone {
			return nil
		}
		if d.to.paused == pauseRefused {
			return fmt.Errorf("%w: %w", errDestination, d.to.lastErr)
		}
		if err := sleep(ctx, wait); err != nil {
			return errors.Join(err, d.trouble)
		}
	}
}
