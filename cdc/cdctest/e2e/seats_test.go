package e2e

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// price of every seat, in KRW.
const price = 1000

// seats are the users and reservations that a test pays for. They are written
// to the tables, because other systems make them in real life.
type seats struct {
	balance int64 // of all users together, before anybody paid
	// expected is how a payment of the reservation ends.
	expected map[uuid.UUID]string
	rich     []uuid.UUID
	poor     uuid.UUID

	reservations [][]any
}

func newSeats(t testing.TB, s *stack) *seats {
	t.Helper()
	const riches, users = 1_000_000_000, 20
	c := &seats{expected: map[uuid.UUID]string{}, poor: uuid.New(), balance: users * riches}
	rows := [][]any{{c.poor, 0, "KRW"}}
	for range users {
		id := uuid.New()
		c.rich = append(c.rich, id)
		rows = append(rows, []any{id, riches, "KRW"})
	}
	c.copy(t, s, "users", []string{"id", "balance", "currency"}, rows)
	return c
}

// order books seats for one request. The kind of the payments turns with n, and
// so does the user, so that some requests wait for each other's balance.
func (c *seats) order(n, reservations int) order {
	o := order{user: c.rich[n%len(c.rich)]}
	owner, expires, outcome := o.user, time.Now().Add(time.Hour), "COMPLETED"
	switch n % 20 {
	case 7, 13:
		o.user, owner, outcome = c.poor, c.poor, "FAILED insufficient_balance"
	case 17:
		expires, outcome = time.Now().Add(-time.Hour), "FAILED expired"
	case 19:
		owner, outcome = c.rich[(n+1)%len(c.rich)], "FAILED not_owner"
	}
	for range reservations {
		id := uuid.New()
		o.reservations = append(o.reservations, id)
		c.expected[id] = outcome
		c.reservations = append(c.reservations, []any{id, owner, "A1", price, "KRW", expires})
	}
	return o
}

// write makes the reservations that were booked since the last call.
func (c *seats) write(t testing.TB, s *stack) {
	t.Helper()
	c.copy(t, s, "reservations", []string{"id", "user_id", "seat", "price", "currency", "expires_at"}, c.reservations)
	c.reservations = nil
}

func (c *seats) copy(t testing.TB, s *stack, table string, columns []string, rows [][]any) {
	t.Helper()
	if _, err := s.pool.CopyFrom(t.Context(), pgx.Identifier{"payment", table}, columns, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
}
