package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// AggregateType is the outbox column from which the topic is made.
const AggregateType = "payment"

// Topic is where the events are.
const Topic = "payment-event"

// The event types.
const (
	TypeCompleted = "payment.completed.v1"
	TypeFailed    = "payment.failed.v1"
)

// ErrUnknownType is what Decode returns (wrapped) for a type that this version
// of the package does not know. Consumers skip and count such events.
var ErrUnknownType = errors.New("unknown event type")

// Status is how a payment ended.
type Status string

// The statuses.
const (
	StatusCompleted Status = "COMPLETED"
	StatusFailed    Status = "FAILED"
)

// FailureCode says why a payment failed; empty for a completed one.
type FailureCode string

// The closed list of v1.
const (
	FailureNotOwner            FailureCode = "not_owner"            // the reservation is somebody else's
	FailureExpired             FailureCode = "expired"              // the reservation was not paid in time
	FailureAlreadyPaid         FailureCode = "already_paid"         // an earlier payment completed
	FailureCancelled           FailureCode = "cancelled"            // the reservation was given up
	FailureInsufficientBalance FailureCode = "insufficient_balance" // the user has less than the price
	FailureInternal            FailureCode = "internal"             // a technical failure; nothing was taken
)

// FailureCodes returns all of them.
func FailureCodes() []FailureCode {
	return []FailureCode{FailureNotOwner, FailureExpired, FailureAlreadyPaid, FailureCancelled, FailureInsufficientBalance, FailureInternal}
}

// MaxValue is the largest amount: every JSON reader holds it exactly (2^53-1).
const MaxValue = 1<<53 - 1

// Amount is money in the currency's minor unit: 15000 KRW, or 150.00 EUR as 15000.
type Amount struct {
	Value    int64  `json:"value"`
	Currency string `json:"currency"` // ISO 4217
}

// Payment is the payload of every type.
type Payment struct {
	PaymentID     string      // UUID in lower case
	ReservationID string      // likewise; the record's key
	UserID        string      // likewise; who pays
	Status        Status      // COMPLETED exactly if the type is TypeCompleted
	Amount        Amount      // the price of the seat
	FailureCode   FailureCode // empty exactly if Status is COMPLETED
	ExecutedAt    time.Time   // when it was decided
}

// Type returns the event type that belongs to the status.
func (p Payment) Type() string {
	if p.Status == StatusCompleted {
		return TypeCompleted
	}
	return TypeFailed
}

// wire is the JSON form. Pointers tell null and absent from empty.
type wire struct {
	PaymentID     *string         `json:"payment_id"`
	ReservationID *string         `json:"reservation_id"`
	UserID        *string         `json:"user_id"`
	Status        *Status         `json:"status"`
	Amount        *wireAmount     `json:"amount"`
	FailureCode   json.RawMessage `json:"failure_code"`
	ExecutedAt    *time.Time      `json:"executed_at"`
}

type wireAmount struct {
	Value    *int64  `json:"value"`
	Currency *string `json:"currency"`
}

// Encode returns the type and the payload of the event.
func Encode(p Payment) (eventType string, payload []byte, err error) {
	if err := p.validate(p.Type()); err != nil {
		return "", nil, fmt.Errorf("encode %s: %w", p.Type(), err)
	}
	executed := p.ExecutedAt.UTC()
	failure := json.RawMessage("null")
	if p.FailureCode != "" {
		failure = json.RawMessage(`"` + p.FailureCode + `"`)
	}
	payload, err = json.Marshal(wire{
		PaymentID: &p.PaymentID, ReservationID: &p.ReservationID, UserID: &p.UserID, Status: &p.Status,
		Amount:      &wireAmount{Value: &p.Amount.Value, Currency: &p.Amount.Currency},
		FailureCode: failure, ExecutedAt: &executed,
	})
	if err != nil {
		return "", nil, fmt.Errorf("encode %s: %w", p.Type(), err)
	}
	return p.Type(), payload, nil
}

// Decode reads the payload of an event of the given type. Errors other than
// ErrUnknownType mean that the event breaks the contract: reading it again does
// not help.
func Decode(eventType string, payload []byte) (Payment, error) {
	if eventType != TypeCompleted && eventType != TypeFailed {
		return Payment{}, fmt.Errorf("%w %q", ErrUnknownType, eventType)
	}
	var w wire
	decoder := json.NewDecoder(strings.NewReader(string(payload)))
	if err := decoder.Decode(&w); err != nil {
		return Payment{}, fmt.Errorf("decode %s: %w", eventType, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Payment{}, fmt.Errorf("decode %s: data after the object", eventType)
	}
	p, err := w.payment()
	if err == nil {
		err = p.validate(eventType)
	}
	if err != nil {
		return Payment{}, fmt.Errorf("decode %s: %w", eventType, err)
	}
	return p, nil
}

// payment returns what is there; every field has to be.
func (w wire) payment() (Payment, error) {
	var missing []string
	need := func(name string, present bool) {
		if !present {
			missing = append(missing, name)
		}
	}
	need("payment_id", w.PaymentID != nil)
	need("reservation_id", w.ReservationID != nil)
	need("user_id", w.UserID != nil)
	need("status", w.Status != nil)
	need("amount.value", w.Amount != nil && w.Amount.Value != nil)
	need("amount.currency", w.Amount != nil && w.Amount.Currency != nil)
	need("failure_code", w.FailureCode != nil)
	need("executed_at", w.ExecutedAt != nil)
	if len(missing) > 0 {
		return Payment{}, fmt.Errorf("missing or null: %s", strings.Join(missing, ", "))
	}
	var failure FailureCode // null leaves it empty
	if err := json.Unmarshal(w.FailureCode, &failure); err != nil {
		return Payment{}, fmt.Errorf("failure_code: %w", err)
	}
	if failure == "" && string(w.FailureCode) != "null" {
		return Payment{}, errors.New("failure_code is empty, not null")
	}
	return Payment{
		PaymentID: *w.PaymentID, ReservationID: *w.ReservationID, UserID: *w.UserID, Status: *w.Status,
		Amount:      Amount{Value: *w.Amount.Value, Currency: *w.Amount.Currency},
		FailureCode: failure, ExecutedAt: w.ExecutedAt.UTC(),
	}, nil
}
