package payment

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// What a test or a demo needs before it can pay. In real life other systems
// make users, balances and reservations.

type userRequest struct {
	Balance Money `json:"balance"`
}

func (s *Service) createUser(ctx context.Context, call Call, req userRequest) (Answer, error) {
	return s.answerOnce(ctx, call, func(ctx context.Context, tx pgx.Tx) (Answer, error) {
		u := User{Balance: req.Balance}
		var err error
		if u.ID, err = uuid.NewV7(); err != nil {
			return Answer{}, fmt.Errorf("make a user id: %w", err)
		}
		if err := insertUser(ctx, tx, &u); err != nil {
			return Answer{}, err
		}
		return newAnswer(http.StatusCreated, "", userAnswer{ID: u.ID, Balance: u.Balance, CreatedAt: u.CreatedAt.UTC()})
	})
}

type chargeRequest struct {
	Amount Money `json:"amount"`
}

func (s *Service) charge(ctx context.Context, call Call, userID uuid.UUID, req chargeRequest) (Answer, error) {
	return s.answerOnce(ctx, call, func(ctx context.Context, tx pgx.Tx) (Answer, error) {
		user, exists, err := lockUser(ctx, tx, userID)
		if err != nil {
			return Answer{}, err
		}
		if !exists {
			return Answer{}, notFound("There is no such user.")
		}
		if user.Balance.Currency != req.Amount.Currency {
			return Answer{}, invalidBody([]Violation{wrongCurrency("#/amount/currency", user.Balance.Currency)})
		}
		if req.Amount.Value > event.MaxValue-user.Balance.Value {
			return Answer{}, invalidBody([]Violation{{Pointer: "#/amount/value", Code: "too_large", Detail: "The balance would be larger than 9007199254740991."}})
		}
		id, err := uuid.NewV7()
		if err != nil {
			return Answer{}, fmt.Errorf("make a charge id: %w", err)
		}
		created, err := addMoney(ctx, tx, id, userID, req.Amount.Value)
		if err != nil {
			return Answer{}, err
		}
		balance := Money{Value: user.Balance.Value + req.Amount.Value, Currency: user.Balance.Currency}
		return newAnswer(http.StatusCreated, "", chargeAnswer{ID: id, UserID: userID, Amount: req.Amount, Balance: balance, CreatedAt: created.UTC()})
	})
}

type reservationRequest struct {
	UserID    uuid.UUID `json:"user_id"`
	Seat      string    `json:"seat"`
	Price     Money     `json:"price"`
	ExpiresAt time.Time `json:"expires_at"` // zero: the service's own time limit
}

func (s *Service) createReservation(ctx context.Context, call Call, req reservationRequest) (Answer, error) {
	return s.answerOnce(ctx, call, func(ctx context.Context, tx pgx.Tx) (Answer, error) {
		currency, err := userCurrency(ctx, tx, req.UserID)
		if err != nil {
			return Answer{}, err
		}
		if currency == "" {
			return Answer{}, invalidBody([]Violation{{Pointer: "#/user_id", Code: "unknown", Detail: "There is no such user."}})
		}
		if currency != req.Price.Currency {
			return Answer{}, invalidBody([]Violation{wrongCurrency("#/price/currency", currency)})
		}
		r := Reservation{UserID: req.UserID, Seat: req.Seat, Price: req.Price, ExpiresAt: req.ExpiresAt}
		if r.ID, err = uuid.NewV7(); err != nil {
			return Answer{}, fmt.Errorf("make a reservation id: %w", err)
		}
		if err := insertReservation(ctx, tx, &r, s.reservationTTL); err != nil {
			return Answer{}, err
		}
		return newAnswer(http.StatusCreated, "/v1/reservations/"+r.ID.String(), newReservationAnswer(r))
	})
}

func wrongCurrency(pointer, want string) Violation {
	return Violation{Pointer: pointer, Code: "wrong_currency", Detail: "The user's balance is in " + want + "."}
}
