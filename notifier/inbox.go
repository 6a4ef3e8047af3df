package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
)

// inboxTimeout bounds one statement of the inbox, so that a database that hangs
// does not hold up a rebalance.
const inboxTimeout = 5 * time.Second

// pruneRows is how many rows one statement deletes.
const pruneRows = 5000

// inboxState is where an event stands.
type inboxState string

// The states; migrations/00001_inbox.sql says what they mean.
const (
	stateSending  inboxState = "sending"
	stateWaiting  inboxState = "waiting"
	stateSent     inboxState = "sent"
	stateUnknown  inboxState = "unknown"
	stateFiltered inboxState = "filtered"
	stateDead     inboxState = "dead"
)

func inboxStates() []inboxState {
	return []inboxState{stateSending, stateWaiting, stateSent, stateUnknown, stateFiltered, stateDead}
}

// inbox is the table that makes each event one message.
type inbox struct{ pool *pgxpool.Pool }

// claim is the right to post an event once.
type claim struct {
	attempts int
	// doubtful: an earlier attempt may have been posted.
	doubtful bool
}

// check says whether the table is there.
func (b *inbox) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, inboxTimeout)
	defer cancel()
	_, err := b.pool.Exec(ctx, `SELECT state FROM notifier_inbox LIMIT 0`)
	const undefinedTable = "42P01"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == undefinedTable {
		return &Problem{What: "the table notifier_inbox does not exist", Why: "it makes each event one message", Fix: "notifier migrate", Err: err}
	}
	if err != nil {
		return fmt.Errorf("look at the inbox: %w", err)
	}
	return nil
}

// filter notes that an event is too old to be posted; false means that the
// event was known before, and stays what it was.
func (b *inbox) filter(ctx context.Context, e *entry, record *kgo.Record) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, inboxTimeout)
	defer cancel()
	tag, err := b.pool.Exec(ctx, `
		INSERT INTO notifier_inbox (event_id, state, event_type, topic, partition, record_offset)
		VALUES ($1, 'filtered', $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		e.id, e.eventType, record.Topic, record.Partition, record.Offset)
	if err != nil {
		return false, fmt.Errorf("note event %s as filtered: %w", e.idText, err)
	}
	return tag.RowsAffected() == 1, nil
}

// claim begins an attempt: the row is sending afterwards. It returns nil when
// the event is settled already. A row that was sending before is of an attempt
// whose outcome nobody noted, here or in a process that died.
func (b *inbox) claim(ctx context.Context, e *entry, record *kgo.Record) (*claim, error) {
	return b.claimFrom(ctx, e, record, stateSending, stateWaiting)
}

// claimDead is claim for a dead letter that is delivered again.
func (b *inbox) claimDead(ctx context.Context, e *entry, record *kgo.Record) (*claim, error) {
	return b.claimFrom(ctx, e, record, stateSending, stateWaiting, stateDead)
}

func (b *inbox) claimFrom(ctx context.Context, e *entry, record *kgo.Record, from ...inboxState) (*claim, error) {
	ctx, cancel := context.WithTimeout(ctx, inboxTimeout)
	defer cancel()
	var c claim
	err := b.pool.QueryRow(ctx, `
		INSERT INTO notifier_inbox AS i (event_id, state, attempts, event_type, topic, partition, record_offset)
		VALUES ($1, 'sending', 1, $2, $3, $4, $5)
		ON CONFLICT (event_id) DO UPDATE
		SET doubtful = i.doubtful OR i.state = 'sending', state = 'sending', attempts = i.attempts + 1, reason = '', updated_at = now()
		WHERE i.state = ANY ($6::text[])
		RETURNING attempts, doubtful`,
		e.id, e.eventType, record.Topic, record.Partition, record.Offset, from).Scan(&c.attempts, &c.doubtful)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("claim event %s: %w", e.idText, err)
	}
	return &c, nil
}

// release notes that the attempt was certainly not posted. Left undone, the
// event counts as doubtful, which is safe.
func (b *inbox) release(ctx context.Context, id uuid.UUID) error {
	return b.move(ctx, id, stateWaiting, "")
}

// settle ends the event's story.
func (b *inbox) settle(ctx context.Context, id uuid.UUID, state inboxState, reason string) error {
	return b.move(ctx, id, state, reason)
}

func (b *inbox) move(ctx context.Context, id uuid.UUID, state inboxState, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, inboxTimeout)
	defer cancel()
	_, err := b.pool.Exec(ctx, `
		UPDATE notifier_inbox SET state = $2, reason = $3, updated_at = now() WHERE event_id = $1 AND state = 'sending'`, id, state, reason)
	if err != nil {
		return fmt.Errorf("note event %s as %s: %w", id, state, err)
	}
	return nil
}

// states returns where events stand; those that are not in the inbox are absent.
func (b *inbox) states(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]inboxState, error) {
	rows, err := b.pool.Query(ctx, `SELECT event_id, state FROM notifier_inbox WHERE event_id = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	states := map[uuid.UUID]inboxState{}
	var id uuid.UUID
	var state inboxState
	if _, err := pgx.ForEachRow(rows, []any{&id, &state}, func() error { states[id] = state; return nil }); err != nil {
		return nil, fmt.Errorf("read states: %w", err)
	}
	return states, nil
}

// counts returns the number of rows of each state.
func (b *inbox) counts(ctx context.Context) (map[inboxState]int64, error) {
	rows, err := b.pool.Query(ctx, `SELECT state, count(*) FROM notifier_inbox GROUP BY state`)
	if err != nil {
		return nil, fmt.Errorf("count the inbox: %w", err)
	}
	counts := map[inboxState]int64{}
	var state inboxState
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[state] = n; return nil }); err != nil {
		return nil, fmt.Errorf("count the inbox: %w", err)
	}
	return counts, nil
}

// prune deletes what was settled longer ago than retention, and returns how
// many rows. Dead letters stay until they are delivered: their state is what
// redrive goes by.
func (b *inbox) prune(ctx context.Context, retention time.Duration) (pruned int64, err error) {
	for {
		tag, err := b.pool.Exec(ctx, `
			DELETE FROM notifier_inbox WHERE event_id IN (
				SELECT event_id FROM notifier_inbox
				WHERE state IN ('sent', 'unknown', 'filtered') AND updated_at < now() - $1::interval LIMIT $2)`,
			retention, pruneRows)
		if err != nil {
			return pruned, fmt.Errorf("prune the inbox: %w", err)
		}
		pruned += tag.RowsAffected()
		if tag.RowsAffected() < pruneRows {
			return pruned, nil
		}
	}
}
