package payment

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maxAttempts is how often a transaction is tried that the server undid for the
// sake of another one.
const maxAttempts = 3

// errConnectionLost marks an error after which the connection was gone. Whether
// the transaction committed is then unknown; the Idempotency-Key tells.
var errConnectionLost = errors.New("the connection to the database was lost")

// beginQuery opens every transaction that changes something. SET LOCAL leaves
// nothing behind for the next user of a pooled connection.
func beginQuery(lockTimeout, requestTimeout time.Duration) string {
	return fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = %d",
		lockTimeout.Milliseconds(), requestTimeout.Milliseconds())
}

// transact runs work in one transaction, again if the server undid it for a
// deadlock or a serialization failure. Work must have no effect but on tx and
// on what it sets anew at every call.
func (s *Service) transact(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.transactOnce(ctx, work)
		state := repeatable(err)
		if state == "" || attempt == maxAttempts {
			return err
		}
		s.metrics.retries.WithLabelValues(state).Inc()
		select {
		case <-time.After(rand.N(time.Duration(attempt) * 20 * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Service) transactOnce(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire a connection: %w", err)
	}
	defer conn.Release()
	began, outcome := time.Now(), outcomeCommitted
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: s.begin}, func(tx pgx.Tx) error { return work(ctx, tx) })
	if err != nil {
		outcome = outcomeRolledBack
		if conn.Conn().IsClosed() && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", errConnectionLost, err)
		}
	}
	s.metrics.transactions.WithLabelValues(outcome).Observe(time.Since(began).Seconds())
	return err
}

// repeatable returns the SQLSTATE of a failure that another try may not have.
func repeatable(err error) string {
	if state := sqlState(err); state == sqlDeadlock || state == sqlSerializationFailure {
		return state
	}
	return ""
}

// sqlState returns the SQLSTATE, or nothing for errors that are not the server's.
func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}
