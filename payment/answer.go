package payment

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// The bodies of answers. Their fields are the contract of openapi.yaml.

type paymentsAnswer struct {
	Payments []paymentAnswer `json:"payments"` // in the order of the request
}

type paymentAnswer struct {
	ID            uuid.UUID      `json:"id"`
	ReservationID uuid.UUID      `json:"reservation_id"`
	UserID        uuid.UUID      `json:"user_id"`
	Status        event.Status   `json:"status"`
	Amount        Money          `json:"amount"`
	ExecutedAt    time.Time      `json:"executed_at"`
	Failure       *failureAnswer `json:"failure"`
	EventID       uuid.UUID      `json:"event_id"`
}

type failureAnswer struct {
	Code    event.FailureCode `json:"code"`
	Message string            `json:"message"`
}

func newPaymentAnswer(p Payment) paymentAnswer {
	answer := paymentAnswer{ID: p.ID, ReservationID: p.ReservationID, UserID: p.UserID, Status: p.Status, Amount: p.Amount, ExecutedAt: p.ExecutedAt.UTC(), EventID: p.EventID}
	if p.Failure != "" {
		answer.Failure = &failureAnswer{Code: p.Failure, Message: failureText(p.Failure)}
	}
	return answer
}

func paymentAnswers(payments []Payment) []paymentAnswer {
	answers := make([]paymentAnswer, 0, len(payments)) // an empty list, never null
	for _, p := range payments {
		answers = append(answers, newPaymentAnswer(p))
	}
	return answers
}

type pageAnswer struct {
	Data       []paymentAnswer `json:"data"`
	HasMore    bool            `json:"has_more"`
	NextCursor *string         `json:"next_cursor"`
}

type historyAnswer struct {
	Data []happeningAnswer `json:"data"`
}

type happeningAnswer struct {
	Status     string    `json:"status"`
	EventID    uuid.UUID `json:"event_id"`
	EventType  string    `json:"event_type"`
	RecordedAt time.Time `json:"recorded_at"`
}

type eventsAnswer struct {
	Data []eventAnswer `json:"data"`
}

type eventAnswer struct {
	ID   uuid.UUID `json:"id"`
	Type string    `json:"type"`
	// Published: true, everything committed up to now is in Kafka, this event
	// too; false, not yet; null, the relay could not be asked.
	Published *bool `json:"published"`
}

type userAnswer struct {
	ID        uuid.UUID `json:"id"`
	Balance   Money     `json:"balance"`
	CreatedAt time.Time `json:"created_at"`
}

type chargeAnswer struct {
	ID        uuid.UUID `json:"id"`
	UserID    uuid.UUID `json:"user_id"`
	Amount    Money     `json:"amount"`
	Balance   Money     `json:"balance"` // after the charge
	CreatedAt time.Time `json:"created_at"`
}

type reservationAnswer struct {
	ID        uuid.UUID         `json:"id"`
	UserID    uuid.UUID         `json:"user_id"`
	Seat      string            `json:"seat"`
	Price     Money             `json:"price"`
	Status    ReservationStatus `json:"status"`
	ExpiresAt time.Time         `json:"expires_at"`
	CreatedAt time.Time         `json:"created_at"`
}

func newReservationAnswer(r Reservation) reservationAnswer {
	return reservationAnswer{ID: r.ID, UserID: r.UserID, Seat: r.Seat, Price: r.Price, Status: r.Status, ExpiresAt: r.ExpiresAt.UTC(), CreatedAt: r.CreatedAt.UTC()}
}

// newAnswer makes the bytes that are sent, stored, and sent again.
func newAnswer(status int, location string, body any) (Answer, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return Answer{}, fmt.Errorf("make the answer: %w", err)
	}
	return Answer{Status: status, Location: location, Body: append(text, '\n')}, nil
}
