package payment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc/outbox"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// Config is what a Service needs. Pool is mandatory; every other zero value is
// the default.
type Config struct {
	// Pool connects as the application's role. It stays the caller's.
	Pool *pgxpool.Pool
	// LockTimeout is how long a request waits for another one that holds its
	// Idempotency-Key, a reservation or the user; then it is 409 or 503. Default
	// 2 s. Waiting requests hold connections of the pool.
	LockTimeout time.Duration
	// RequestTimeout bounds the whole request. Default 10 s.
	RequestTimeout time.Duration
	// KeyRetention is how long an answer is kept. Default 7 days; below the time
	// for which clients repeat requests, a repetition pays again.
	KeyRetention time.Duration
	// ReservationTTL is how long a reservation can be paid that names no end.
	// Default 15 min.
	ReservationTTL time.Duration
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
	// Logger; nil discards.
	Logger *slog.Logger
}

// Service has the use cases. Safe for concurrent use.
type Service struct {
	pool           *pgxpool.Pool
	begin          string
	requestTimeout time.Duration
	lockTimeout    time.Duration
	keyRetention   time.Duration
	reservationTTL time.Duration
	metrics        *metrics
	logger         *slog.Logger
}

// New returns a Service, which needs no closing.
func New(cfg Config) (*Service, error) {
	if cfg.Pool == nil {
		return nil, errors.New("payment: Config.Pool is nil")
	}
	s := &Service{
		pool: cfg.Pool, lockTimeout: orDefault(cfg.LockTimeout, 2*time.Second), requestTimeout: orDefault(cfg.RequestTimeout, 10*time.Second),
		keyRetention: orDefault(cfg.KeyRetention, 7*24*time.Hour), reservationTTL: orDefault(cfg.ReservationTTL, 15*time.Minute), logger: cfg.Logger,
	}
	if s.lockTimeout < time.Millisecond || s.requestTimeout <= s.lockTimeout {
		return nil, fmt.Errorf("payment: lock timeout %s and request timeout %s: want 1ms <= lock timeout < request timeout", s.lockTimeout, s.requestTimeout)
	}
	if s.keyRetention <= s.requestTimeout || s.reservationTTL <= 0 {
		return nil, fmt.Errorf("payment: key retention %s and reservation TTL %s are too short", s.keyRetention, s.reservationTTL)
	}
	s.begin = beginQuery(s.lockTimeout, s.requestTimeout)
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	s.metrics, err = newMetrics(cfg.Registerer, cfg.Pool)
	return s, err
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// payRequest is a checked request for payments.
type payRequest struct {
	UserID         uuid.UUID   `json:"user_id"`
	ReservationIDs []uuid.UUID `json:"reservation_ids"` // 1 to MaxReservations, no repeats
}

// pay tries to pay for every reservation of the request and answers in its
// order, in one transaction.
func (s *Service) pay(ctx context.Context, call Call, req payRequest) (Answer, error) {
	var payments []Payment
	answer, err := s.answerOnce(ctx, call, func(ctx context.Context, tx pgx.Tx) (Answer, error) {
		var err error
		if payments, err = s.settle(ctx, tx, call, req); err != nil {
			return Answer{}, err
		}
		return newAnswer(http.StatusCreated, "", paymentsAnswer{Payments: paymentAnswers(payments)})
	})
	if err == nil && !answer.Replayed {
		s.metrics.countPayments(payments)
	}
	return answer, err
}

// settle locks what the request touches and settles one reservation after the
// other.
func (s *Service) settle(ctx context.Context, tx pgx.Tx, call Call, req payRequest) ([]Payment, error) {
	reservations, err := lockReservations(ctx, tx, req.ReservationIDs)
	if err != nil {
		return nil, err
	}
	user, exists, err := lockUser(ctx, tx, req.UserID)
	if err != nil {
		return nil, err
	}
	if unknown := unknownIDs(req, reservations, exists); len(unknown) > 0 {
		return nil, invalidBody(unknown)
	}
	now, err := serverTime(ctx, tx)
	if err != nil {
		return nil, err
	}
	payments := make([]Payment, 0, len(req.ReservationIDs))
	balance := user.Balance.Value
	for _, id := range req.ReservationIDs {
		r := reservations[id]
		p, err := s.settleOne(ctx, tx, call, r, newPayment(r, user.ID, decide(r, user.ID, balance, now), now))
		if err != nil {
			return nil, fmt.Errorf("reservation %s: %w", id, err)
		}
		if p.Status == event.StatusCompleted {
			balance -= p.Amount.Value
		}
		payments = append(payments, p)
	}
	return payments, nil
}

// unknownIDs returns a violation for every id of the request that is nothing.
func unknownIDs(req payRequest, reservations map[uuid.UUID]Reservation, userExists bool) (violations []Violation) {
	if !userExists {
		violations = append(violations, Violation{Pointer: "#/user_id", Code: "unknown", Detail: "There is no such user."})
	}
	for i, id := range req.ReservationIDs {
		if _, ok := reservations[id]; !ok {
			violations = append(violations, Violation{Pointer: fmt.Sprintf("#/reservation_ids/%d", i), Code: "unknown", Detail: "There is no such reservation."})
		}
	}
	return violations
}

func newPayment(r Reservation, payer uuid.UUID, failure event.FailureCode, now time.Time) Payment {
	p := Payment{ReservationID: r.ID, UserID: payer, Status: event.StatusCompleted, Amount: r.Price, Failure: failure, ExecutedAt: now.UTC()}
	if failure != "" {
		p.Status = event.StatusFailed
	}
	return p
}

// settleOne records one payment behind a savepoint. What fails technically is
// undone up to there and recorded as FAILED, code internal; if even that fails,
// the whole request does.
func (s *Service) settleOne(ctx context.Context, tx pgx.Tx, call Call, r Reservation, p Payment) (Payment, error) {
	recorded, err := s.record(ctx, tx, call, p)
	if err == nil || !ownFailure(ctx, tx, err) {
		return recorded, err
	}
	s.logger.Error("a payment failed technically and is recorded as FAILED", keyReservation, r.ID, keyError, err)
	return s.record(ctx, tx, call, newPayment(r, p.UserID, event.FailureInternal, p.ExecutedAt))
}

// ownFailure says whether a failure concerns this payment alone: not the
// connection, the server or the time of the request, not a lock that others
// hold, and not another transaction in whose favour the server undid ours.
func ownFailure(ctx context.Context, tx pgx.Tx, err error) bool {
	return ctx.Err() == nil && !tx.Conn().IsClosed() && problemOf(err).Status == http.StatusInternalServerError
}

// record writes all rows of a payment behind a savepoint and returns it with
// its ids.
func (s *Service) record(ctx context.Context, tx pgx.Tx, call Call, p Payment) (Payment, error) {
	var err error
	if p.ID, err = uuid.NewV7(); err != nil {
		return Payment{}, fmt.Errorf("make a payment id: %w", err)
	}
	if p.EventID, err = uuid.NewV7(); err != nil {
		return Payment{}, fmt.Errorf("make an event id: %w", err)
	}
	eventType, payload, err := event.Encode(eventOf(p))
	if err != nil {
		return Payment{}, err
	}
	err = pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
		if err := insertPayment(ctx, savepoint, p); err != nil {
			return err
		}
		if p.Status == event.StatusCompleted {
			if err := takeMoney(ctx, savepoint, p.UserID, p.Amount.Value); err != nil {
				return err
			}
			if err := markPaid(ctx, savepoint, p.ReservationID); err != nil {
				return err
			}
		}
		if err := insertHistory(ctx, savepoint, p, eventType); err != nil {
			return err
		}
		_, err := outbox.Insert(ctx, savepoint, outbox.Event{
			ID: p.EventID, AggregateType: event.AggregateType, AggregateID: p.ReservationID.String(),
			Type: eventType, Payload: payload, Headers: call.Trace, CreatedAt: p.ExecutedAt,
		})
		return err
	})
	return p, err
}

func eventOf(p Payment) event.Payment {
	return event.Payment{
		PaymentID: p.ID.String(), ReservationID: p.ReservationID.String(), UserID: p.UserID.String(), Status: p.Status,
		Amount: event.Amount{Value: p.Amount.Value, Currency: p.Amount.Currency}, FailureCode: p.Failure, ExecutedAt: p.ExecutedAt,
	}
}
