package payment

import (
	"time"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// MaxReservations is how many reservations one request may pay for.
const MaxReservations = 50

// Money is an amount in the currency's minor unit.
type Money struct {
	Value    int64  `json:"value"`
	Currency string `json:"currency"`
}

// ReservationStatus is where a reservation stands. That it has expired is no
// status: the clock says so.
type ReservationStatus string

// The statuses of a reservation.
const (
	Reserved  ReservationStatus = "RESERVED"
	Paid      ReservationStatus = "PAID"
	Cancelled ReservationStatus = "CANCELLED"
)

// Reservation is a seat that a user may pay for until it expires.
type Reservation struct {
	ID        uuid.UUID
	UserID    uuid.UUID
	Seat      string
	Price     Money
	Status    ReservationStatus
	ExpiresAt time.Time
	CreatedAt time.Time
}

// User is somebody with a balance.
type User struct {
	ID        uuid.UUID
	Balance   Money // Invariant: Balance.Value >= 0
	CreatedAt time.Time
}

// Payment is the fact that a payment was tried and how it ended. It never
// changes.
type Payment struct {
	ID            uuid.UUID
	ReservationID uuid.UUID
	UserID        uuid.UUID // who pays, not necessarily the reservation's owner
	Status        event.Status
	Amount        Money
	Failure       event.FailureCode // empty exactly if Status is COMPLETED
	ExecutedAt    time.Time
	EventID       uuid.UUID
}

// decide says whether the payer may pay for the reservation now, from a balance
// in the currency of the owner; "" is yes. The order of the questions is part
// of the contract: a stranger learns nothing but that the reservation is not
// theirs, and a paid reservation is paid, however late it is.
func decide(r Reservation, payer uuid.UUID, balance int64, now time.Time) event.FailureCode {
	switch {
	case r.UserID != payer:
		return event.FailureNotOwner
	case r.Status == Cancelled:
		return event.FailureCancelled
	case r.Status == Paid:
		return event.FailureAlreadyPaid
	case !now.Before(r.ExpiresAt):
		return event.FailureExpired
	case balance < r.Price.Value:
		return event.FailureInsufficientBalance
	}
	return ""
}

// failureText is what people read beside the code.
func failureText(code event.FailureCode) string {
	switch code {
	case event.FailureNotOwner:
		return "The reservation belongs to another user."
	case event.FailureExpired:
		return "The reservation has expired."
	case event.FailureAlreadyPaid:
		return "The reservation is already paid."
	case event.FailureCancelled:
		return "The reservation was cancelled."
	case event.FailureInsufficientBalance:
		return "The balance is less than the price."
	default:
		return "A technical failure; no money was taken. Try again with a new Idempotency-Key."
	}
}
