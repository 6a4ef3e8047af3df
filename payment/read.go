package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

func (s *Service) payment(ctx context.Context, id uuid.UUID) (Payment, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+paymentColumns+` FROM payment.payments AS p WHERE p.id = $1`, id)
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPayment)
	if errors.Is(err, pgx.ErrNoRows) {
		return Payment{}, notFound("There is no such payment.")
	}
	if err != nil {
		return Payment{}, fmt.Errorf("read payment: %w", err)
	}
	return p, nil
}

// paymentFilter selects payments; empty fields select all.
type paymentFilter struct {
	UserID        *uuid.UUID
	ReservationID *uuid.UUID
	Status        string
}

// payments returns a page of payments, the newest first, and whether there are
// more. Ids are UUIDv7: their order is the order of making, and a cursor that is
// an id keeps its place whatever is added in front.
func (s *Service) payments(ctx context.Context, filter paymentFilter, before uuid.UUID, limit int) ([]Payment, bool, error) {
	var cursor *uuid.UUID
	if before != uuid.Nil {
		cursor = &before
	}
	rows, err := s.pool.Query(ctx, `SELECT `+paymentColumns+` FROM payment.payments AS p
		WHERE ($1::uuid IS NULL OR p.user_id = $1) AND ($2::uuid IS NULL OR p.reservation_id = $2) AND ($3 = '' OR p.status = $3) AND ($4::uuid IS NULL OR p.id < $4)
		ORDER BY p.id DESC LIMIT $5`, filter.UserID, filter.ReservationID, filter.Status, cursor, limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list payments: %w", err)
	}
	page, err := pgx.CollectRows(rows, scanPayment)
	if err != nil {
		return nil, false, fmt.Errorf("list payments: %w", err)
	}
	return page[:min(len(page), limit)], len(page) > limit, nil
}

// happening is one row of a payment's history.
type happening struct {
	Status     string
	EventID    uuid.UUID
	EventType  string
	RecordedAt time.Time
}

// history returns what happened to a payment, the oldest first.
func (s *Service) history(ctx context.Context, id uuid.UUID) ([]happening, error) {
	rows, err := s.pool.Query(ctx, `SELECT status, event_id, event_type, recorded_at FROM payment.history WHERE payment_id = $1 ORDER BY id`, id)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	history, err := pgx.CollectRows(rows, pgx.RowToStructByPos[happening])
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	if len(history) == 0 {
		return nil, notFound("There is no such payment.")
	}
	return history, nil
}

// insertLSN is where the WAL ends for writers. What was visible before the
// question lies below it, also with synchronous_commit off.
func (s *Service) insertLSN(ctx context.Context) (lsn string, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&lsn); err != nil {
		return "", fmt.Errorf("ask for the insert LSN: %w", err)
	}
	return lsn, nil
}

func (s *Service) reservation(ctx context.Context, id uuid.UUID) (Reservation, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+reservationColumns+` FROM payment.reservations WHERE id = $1`, id)
	if err != nil {
		return Reservation{}, fmt.Errorf("read reservation: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanReservation)
	if errors.Is(err, pgx.ErrNoRows) {
		return Reservation{}, notFound("There is no such reservation.")
	}
	if err != nil {
		return Reservation{}, fmt.Errorf("read reservation: %w", err)
	}
	return r, nil
}

// userCurrency returns the currency of the user's balance, which never changes,
// or nothing if there is no such user.
func userCurrency(ctx context.Context, tx pgx.Tx, id uuid.UUID) (currency string, err error) {
	err = tx.QueryRow(ctx, `SELECT currency FROM payment.users WHERE id = $1`, id).Scan(&currency)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read user: %w", err)
	}
	return currency, nil
}

// Ready says whether the service can work: the database answers and has the
// tables of this version. Kafka is none of its business.
func (s *Service) Ready(ctx context.Context) error {
	var version int64
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable+` WHERE is_applied`).Scan(&version); err != nil {
		if sqlState(err) == sqlUndefinedTable {
			return errors.New("the database has no tables of the payment service: run payment-api migrate up")
		}
		return fmt.Errorf("the database does not answer: %w", err)
	}
	if version < schemaVersion {
		return fmt.Errorf("the database is at migration %d, this version needs %d: run payment-api migrate up", version, schemaVersion)
	}
	return nil
}
