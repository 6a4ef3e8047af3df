package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

const (
	payments    = 2000
	callers     = 8
	killsOfEach = 4
	parallel    = 200
)

// TestPaymentsUnderKills pays through programs that are killed again and again.
// What Postgres holds in the end is the truth; everything else has to agree.
func TestPaymentsUnderKills(t *testing.T) {
	s := startStack(t)
	shop := newSeats(t, s)
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	t.Cleanup(transport.CloseIdleConnections)
	p := &payer{url: s.apiURL, http: &http.Client{Transport: transport, Timeout: 15 * time.Second}}
	answers := &answers{}

	t.Run("200 parallel requests with one key are one payment", func(t *testing.T) {
		o := shop.order(0, 1)
		shop.write(t, s)
		var mu sync.Mutex
		bodies := map[string]int{}
		all(t, parallel, func(ctx context.Context, _ int) error {
			payments, body, err := p.pay(ctx, "one-key", o)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if bodies[string(body)]++; len(bodies) == 1 && bodies[string(body)] == 1 {
				answers.add(payments)
			}
			return nil
		})
		if len(bodies) != 1 {
			t.Errorf("got %d different answers, want one", len(bodies))
		}
		if n := countPayments(t, s, o.reservations[0], ""); n != 1 {
			t.Errorf("got %d payments, want one", n)
		}
	})
	t.Run("200 parallel payments of one reservation complete once", func(t *testing.T) {
		o := shop.order(0, 1)
		shop.write(t, s)
		delete(shop.expected, o.reservations[0]) // the first completes it, nobody knows which that is
		all(t, parallel, func(ctx context.Context, n int) error {
			payments, _, err := p.pay(ctx, fmt.Sprintf("one-seat-%d", n), o)
			answers.add(payments)
			return err
		})
		if n := countPayments(t, s, o.reservations[0], "COMPLETED"); n != 1 {
			t.Errorf("got %d completed payments, want one", n)
		}
		if n := countPayments(t, s, o.reservations[0], "FAILED"); n != parallel-1 {
			t.Errorf("got %d failed payments, want %d", n, parallel-1)
		}
	})
	p.again.Store(0)
	p.replayed.Store(0)
	orders := book(shop)
	shop.write(t, s)
	payUnderKills(t, s, p, answers, orders)
	t.Logf("%d requests had no answer and were sent again, %d of them had been committed", p.again.Load(), p.replayed.Load())
	if p.again.Load() == 0 {
		t.Error("no caller noticed a kill of payment-api")
	}
	if got, want := len(answers.list), payments+1+parallel; got != want {
		t.Fatalf("got %d payments in answers, want %d", got, want)
	}
	awaitAll(t, s, len(answers.list))
	s.awaitReady(t) // the last kill may have come when everything was through
	for _, program := range []*relaytest.Supervisor{s.api, s.notifier, s.relay} {
		program.Stop(t)
		if program.Lives() <= killsOfEach {
			t.Errorf("%s lived %d times, want more than its %d kills", program.Name(), program.Lives(), killsOfEach)
		}
	}
	check(t, s, shop, answers.list)
}

// answers are the payments of all 201s, from many goroutines.
type answers struct {
	mu   sync.Mutex
	list []paid
}

func (a *answers) add(payments []paid) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, payments...)
}

// all runs n calls at the same time.
func all(t testing.TB, n int, call func(ctx context.Context, i int) error) {
	t.Helper()
	begin := make(chan struct{})
	group, ctx := errgroup.WithContext(t.Context())
	for i := range n {
		group.Go(func() error { <-begin; return call(ctx, i) })
	}
	close(begin)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// book makes requests of one, two or three reservations.
func book(shop *seats) (orders []order) {
	for left := payments; left > 0; {
		size := min(left, 1+len(orders)%3)
		orders = append(orders, shop.order(len(orders), size))
		left -= size
	}
	return orders
}

// payUnderKills sends the orders. Each time a share of them was handed out, the
// next program is killed, while the callers go on; the one after it is not
// killed before this one works again.
func payUnderKills(t testing.TB, s *stack, p *payer, answers *answers, orders []order) {
	t.Helper()
	victims := []struct {
		program *relaytest.Supervisor
		ready   string
	}{
		{s.api, s.apiSays}, {s.relay, "http://" + s.relayAdmin.Addr + "/readyz"}, {s.notifier, s.notifierReady},
	}
	const kills = 3 * killsOfEach
	queue, due := make(chan int), make(chan int)
	group, ctx := errgroup.WithContext(t.Context())
	for range callers {
		group.Go(func() error {
			for n := range queue {
				payments, _, err := p.pay(ctx, fmt.Sprintf("order-%d", n), orders[n])
				if err != nil {
					return fmt.Errorf("order %d: %w", n, err)
				}
				answers.add(payments)
			}
			return nil
		})
	}
	group.Go(func() error {
		for n := range due {
			victim := victims[n%len(victims)]
			for getOK(ctx, victim.ready) != nil || !victim.program.Kill() {
				if err := s.failure(); err != nil {
					return err
				}
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return fmt.Errorf("kill %s: %w", victim.program.Name(), ctx.Err())
				}
			}
		}
		return nil
	})
	group.Go(func() error {
		defer close(queue)
		defer close(due)
		killed := 0
		for n := range orders {
			if killed < kills && n >= (killed+1)*len(orders)/(kills+1) {
				select {
				case due <- killed:
				case <-ctx.Done():
					return ctx.Err()
				}
				killed++
			}
			select {
			case queue <- n:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// awaitAll waits until every event is published and every message noted.
func awaitAll(t testing.TB, s *stack, events int) {
	t.Helper()
	upTo := insertLSN(t, s)
	eventually(t, 2*time.Minute, func() error {
		published, err := s.relayAdmin.Published(t.Context(), upTo, 5*time.Second)
		if err == nil && !published {
			err = fmt.Errorf("not published up to %s", upTo)
		}
		return err
	})
	s.kafka.AwaitDecided(t, s.topic)
	eventually(t, 2*time.Minute, func() error {
		var sent int
		err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM notifier.notifier_inbox WHERE state = 'sent'`).Scan(&sent)
		if err == nil && sent < events {
			err = fmt.Errorf("%d messages are sent, want %d", sent, events)
		}
		return err
	})
}

func countPayments(t testing.TB, s *stack, reservation uuid.UUID, status string) (n int) {
	t.Helper()
	err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM payment.payments WHERE reservation_id = $1 AND ($2 = '' OR status = $2)`, reservation, status).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
