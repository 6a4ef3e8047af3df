package payment

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

func TestDecide(t *testing.T) {
	owner, stranger, now := uuid.New(), uuid.New(), time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	reserved := Reservation{UserID: owner, Price: Money{Value: 100, Currency: "KRW"}, Status: Reserved, ExpiresAt: now.Add(time.Second)}
	late := reserved
	late.ExpiresAt = now
	with := func(r Reservation, status ReservationStatus) Reservation {
		r.Status = status
		return r
	}
	for _, test := range []struct {
		name    string
		r       Reservation
		payer   uuid.UUID
		balance int64
		want    event.FailureCode
	}{
		{"enough", reserved, owner, 100, ""},
		{"one too little", reserved, owner, 99, event.FailureInsufficientBalance},
		{"at the moment it expires", late, owner, 100, event.FailureExpired},
		{"expired and poor", late, owner, 0, event.FailureExpired},
		{"paid", with(reserved, Paid), owner, 100, event.FailureAlreadyPaid},
		{"paid, later expired", with(late, Paid), owner, 100, event.FailureAlreadyPaid},
		{"cancelled, later expired", with(late, Cancelled), owner, 100, event.FailureCancelled},
		{"a stranger's, whatever else", with(late, Paid), stranger, 0, event.FailureNotOwner},
	} {
		if got := decide(test.r, test.payer, test.balance, now); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
