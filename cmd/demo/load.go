package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// load is the people who pay.
type load struct {
	api   string // base URL
	dsn   string // for the transactions that are rolled back
	rate  float64
	batch int // reservations in a request
	watch *watch

	client     *http.Client
	users      []user
	rolledBack atomic.Int64
}

type user struct {
	ID      string       `json:"id"`
	Balance event.Amount `json:"balance"`
}

// workers pay at the same time, so that transactions overlap.
const workers = 3

// rollbackInterval makes at least one aborted transaction a second, beside
// whatever a restart aborts.
const rollbackInterval = 300 * time.Millisecond

func newLoad(api, dsn string, o options, w *watch) *load {
	l := &load{api: api, dsn: dsn, rate: o.rate, batch: 1, watch: w, client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers}}}
	if o.check {
		l.batch = 8
	}
	return l
}

// run pays until ctx ends; what was begun is finished under finish, so that
// every request has its answer.
func (l *load) run(ctx, finish context.Context) error {
	defer l.client.CloseIdleConnections()
	for _, currency := range []string{"KRW", "USD", "EUR", "KRW"} {
		u := user{Balance: event.Amount{Value: 1 << 50, Currency: currency}}
		if err := l.post(finish, "/v1/users", map[string]any{"balance": u.Balance}, &u); err != nil {
			return err
		}
		l.users = append(l.users, u)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.abort(ctx) })
	tickets := make(chan struct{})
	group.Go(func() error { return l.pace(ctx, tickets) })
	for range workers {
		group.Go(func() error { return l.pay(finish, tickets) })
	}
	return group.Wait()
}

// pace hands out a ticket for every request until ctx ends.
func (l *load) pace(ctx context.Context, tickets chan<- struct{}) error {
	defer close(tickets)
	ticker := time.NewTicker(time.Duration(float64(time.Second) * float64(l.batch) / l.rate))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		select {
		case tickets <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
}

// pay is one payer: seats are reserved and paid, many of them again, or by
// somebody else first, so that one key has several events in a fixed order.
func (l *load) pay(ctx context.Context, tickets <-chan struct{}) error {
	for round := 0; ; round++ {
		i := rand.IntN(len(l.users))
		owner, stranger := l.users[i], l.users[(i+1)%len(l.users)]
		payers := []user{owner}
		switch {
		case l.batch > 1:
			payers = []user{stranger, owner, owner}
		case round%5 == 2:
			payers = []user{stranger, owner}
		case round%5 == 4:
			payers = []user{owner, owner}
		}
		var reservations []string
		for n, payer := range payers {
			if _, ok := <-tickets; !ok {
				return nil
			}
			var err error
			if n == 0 {
				reservations, err = l.reserve(ctx, owner)
			}
			if err == nil {
				err = l.payOnce(ctx, payer, reservations)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (l *load) reserve(ctx context.Context, owner user) ([]string, error) {
	var ids []string
	for range l.batch {
		price := event.Amount{Value: int64(5+rand.IntN(40)) * 1000, Currency: owner.Balance.Currency}
		seat := fmt.Sprintf("%c-%d", 'A'+rune(rand.IntN(20)), 1+rand.IntN(40))
		var answer struct {
			ID string `json:"id"`
		}
		if err := l.post(ctx, "/v1/reservations", map[string]any{"user_id": owner.ID, "seat": seat, "price": price}, &answer); err != nil {
			return nil, err
		}
		ids = append(ids, answer.ID)
	}
	return ids, nil
}

// paid is a payment as the API answers it.
type paid struct {
	ID            string       `json:"id"`
	ReservationID string       `json:"reservation_id"`
	Status        event.Status `json:"status"`
	Amount        event.Amount `json:"amount"`
	EventID       string       `json:"event_id"`
	Failure       *struct {
		Code string `json:"code"`
	} `json:"failure"`
}

func (l *load) payOnce(ctx context.Context, payer user, reservations []string) error {
	var answer struct {
		Payments []paid `json:"payments"`
	}
	asked := time.Now()
	if err := l.post(ctx, "/v1/payments", map[string]any{"user_id": payer.ID, "reservation_ids": reservations}, &answer); err != nil {
		return err
	}
	for _, p := range answer.Payments {
		l.watch.answered(p, asked)
	}
	return nil
}

// post sends a request until it is answered. All tries have one Idempotency-Key:
// what was done behind a lost answer is not done twice.
func (l *load) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	key := uuid.NewString()
	for {
		status, reply, err := l.try(ctx, path, key, text)
		switch {
		case err == nil && status == http.StatusCreated:
			if err := json.Unmarshal(reply, answer); err != nil {
				return fmt.Errorf("read the answer of %s: %w", path, err)
			}
			return nil
		case err == nil && status < 500 && status != http.StatusConflict && status != http.StatusTooManyRequests:
			return fmt.Errorf("POST %s: answered %d: %s", path, status, reply)
		}
		if !sleep(ctx, retryInterval) {
			return fmt.Errorf("POST %s: not answered in time (last %d): %w", path, status, ctx.Err())
		}
	}
}

func (l *load) try(ctx context.Context, path, key string, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.api+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := l.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read from
	reply, err := io.ReadAll(response.Body)
	return response.StatusCode, reply, err
}

// abort inserts outbox rows and rolls them back; none of them may ever be seen.
func (l *load) abort(ctx context.Context) error {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // nothing is open in it
		}
	}()
	for sleep(ctx, rollbackInterval) {
		if conn == nil || conn.IsClosed() {
			conn, _ = pgx.Connect(ctx, l.dsn) // tried again at the next turn
		}
		if conn != nil && rollBack(ctx, conn) == nil {
			l.rolledBack.Add(1)
			l.watch.rolledBack()
		}
	}
	return nil
}

// rollBack is one aborted transaction that wrote to the WAL.
func rollBack(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	id, key := uuid.Must(uuid.NewV7()), uuid.NewString()
	payload, err := json.Marshal(map[string]string{"payment_id": uuid.NewString(), "reservation_id": key, "status": "ROLLED_BACK"})
	if err == nil {
		_, err = tx.Exec(ctx, "INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, 'payment', $2, $3, $4)", id, key, event.TypeCompleted, payload)
	}
	if rollbackErr := tx.Rollback(ctx); err == nil {
		err = rollbackErr
	}
	return err
}
