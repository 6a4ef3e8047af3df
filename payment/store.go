package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// FOR NO KEY UPDATE locks rows against each other like FOR UPDATE, but lets
// foreign keys look at them: making a reservation does not wait for a payment.
//
// Lock order of every transaction: idempotency key, reservations by id, user.

// lockReservations locks the rows in the order of their ids and returns those
// that exist.
func lockReservations(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) (map[uuid.UUID]Reservation, error) {
	rows, err := tx.Query(ctx, `SELECT `+reservationColumns+` FROM payment.reservations WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`, ids)
	if err != nil {
		return nil, fmt.Errorf("lock reservations: %w", err)
	}
	found := make(map[uuid.UUID]Reservation, len(ids))
	reservations, err := pgx.CollectRows(rows, scanReservation)
	if err != nil {
		return nil, fmt.Errorf("lock reservations: %w", err)
	}
	for _, r := range reservations {
		found[r.ID] = r
	}
	return found, nil
}

// lockUser returns the user with the row locked, or false if there is none.
func lockUser(ctx context.Context, tx pgx.Tx, id uuid.UUID) (User, bool, error) {
	u := User{ID: id}
	err := tx.QueryRow(ctx, `SELECT balance, currency, created_at FROM payment.users WHERE id = $1 FOR NO KEY UPDATE`, id).Scan(&u.Balance.Value, &u.Balance.Currency, &u.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, false, nil
	}
	if err != nil {
		return User{}, false, fmt.Errorf("lock user: %w", err)
	}
	return u, true, nil
}

// serverTime is the one clock that decides what has expired. Asked after the
// locks are held: now() would be the time before the wait for them.
func serverTime(ctx context.Context, tx pgx.Tx) (now time.Time, err error) {
	if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("ask for the server's time: %w", err)
	}
	return now, nil
}

func insertPayment(ctx context.Context, tx pgx.Tx, p Payment) error {
	_, err := tx.Exec(ctx, `INSERT INTO payment.payments (id, reservation_id, user_id, status, amount, currency, failure_code, executed_at) VALUES ($1, $2, $3, $4, $5, $6, nullif($7, ''), $8)`,
		p.ID, p.ReservationID, p.UserID, string(p.Status), p.Amount.Value, p.Amount.Currency, string(p.Failure), p.ExecutedAt)
	if err != nil {
		return fmt.Errorf("insert payment: %w", err)
	}
	return nil
}

// takeMoney and markPaid change exactly one row that this transaction has
// locked, or nothing is as it was read.
func takeMoney(ctx context.Context, tx pgx.Tx, userID uuid.UUID, amount int64) error {
	return execOne(ctx, tx, "take money", `UPDATE payment.users SET balance = balance - $2 WHERE id = $1`, userID, amount)
}

func markPaid(ctx context.Context, tx pgx.Tx, reservationID uuid.UUID) error {
	return execOne(ctx, tx, "mark the reservation paid", `UPDATE payment.reservations SET status = 'PAID' WHERE id = $1 AND status = 'RESERVED'`, reservationID)
}

func insertHistory(ctx context.Context, tx pgx.Tx, p Payment, eventType string) error {
	return execOne(ctx, tx, "insert history", `INSERT INTO payment.history (payment_id, status, event_id, event_type, recorded_at) VALUES ($1, $2, $3, $4, $5)`,
		p.ID, string(p.Status), p.EventID, eventType, p.ExecutedAt)
}

func insertUser(ctx context.Context, tx pgx.Tx, u *User) error {
	err := tx.QueryRow(ctx, `INSERT INTO payment.users (id, balance, currency) VALUES ($1, $2, $3) RETURNING created_at`, u.ID, u.Balance.Value, u.Balance.Currency).Scan(&u.CreatedAt)
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	return nil
}

// addMoney charges the balance of a locked user.
func addMoney(ctx context.Context, tx pgx.Tx, chargeID, userID uuid.UUID, amount int64) (created time.Time, err error) {
	if err := execOne(ctx, tx, "add money", `UPDATE payment.users SET balance = balance + $2 WHERE id = $1`, userID, amount); err != nil {
		return time.Time{}, err
	}
	err = tx.QueryRow(ctx, `INSERT INTO payment.charges (id, user_id, amount) VALUES ($1, $2, $3) RETURNING created_at`, chargeID, userID, amount).Scan(&created)
	if err != nil {
		return time.Time{}, fmt.Errorf("insert charge: %w", err)
	}
	return created, nil
}

// insertReservation leaves a zero ExpiresAt to the server's clock and ttl.
func insertReservation(ctx context.Context, tx pgx.Tx, r *Reservation, ttl time.Duration) error {
	var expires *time.Time
	if !r.ExpiresAt.IsZero() {
		expires = &r.ExpiresAt
	}
	err := tx.QueryRow(ctx, `INSERT INTO payment.reservations (id, user_id, seat, price, currency, expires_at) VALUES ($1, $2, $3, $4, $5, coalesce($6, now() + $7)) RETURNING status, expires_at, created_at`,
		r.ID, r.UserID, r.Seat, r.Price.Value, r.Price.Currency, expires, ttl).Scan(&r.Status, &r.ExpiresAt, &r.CreatedAt)
	if err != nil {
		return fmt.Errorf("insert reservation: %w", err)
	}
	return nil
}

func execOne(ctx context.Context, tx pgx.Tx, step, statement string, args ...any) error {
	tag, err := tx.Exec(ctx, statement, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("%s: %d rows changed, want 1", step, tag.RowsAffected())
	}
	return nil
}

const reservationColumns = `id, user_id, seat, price, currency, status, expires_at, created_at`

func scanReservation(row pgx.CollectableRow) (r Reservation, err error) {
	err = row.Scan(&r.ID, &r.UserID, &r.Seat, &r.Price.Value, &r.Price.Currency, &r.Status, &r.ExpiresAt, &r.CreatedAt)
	return r, err
}

const paymentColumns = `p.id, p.reservation_id, p.user_id, p.status, p.amount, p.currency, coalesce(p.failure_code, ''), p.executed_at,
	(SELECT h.event_id FROM payment.history AS h WHERE h.payment_id = p.id ORDER BY h.id DESC LIMIT 1)`

func scanPayment(row pgx.CollectableRow) (p Payment, err error) {
	var status, failure string
	err = row.Scan(&p.ID, &p.ReservationID, &p.UserID, &status, &p.Amount.Value, &p.Amount.Currency, &failure, &p.ExecutedAt, &p.EventID)
	p.Status, p.Failure = event.Status(status), event.FailureCode(failure)
	return p, err
}
