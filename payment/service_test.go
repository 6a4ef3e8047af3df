package payment_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/payment"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// outboxRow is a row as the superuser sees it.
type outboxRow struct {
	ID, AggregateType, AggregateID, Type string
	Payload                              []byte
	Headers                              map[string]string
	CreatedAt                            time.Time
}

func (b *bed) outbox(t testing.TB) map[string]outboxRow {
	t.Helper()
	rows, err := b.super.Query(t.Context(), `SELECT id::text, aggregatetype, aggregateid, type, payload::text, headers, created_at FROM public.outbox`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r outboxRow, err error) {
		var payload string
		err = row.Scan(&r.ID, &r.AggregateType, &r.AggregateID, &r.Type, &payload, &r.Headers, &r.CreatedAt)
		r.Payload = []byte(payload)
		return r, err
	})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]outboxRow{}
	for _, r := range all {
		byID[r.ID] = r
	}
	return byID
}

// checkEvents holds every payment against its outbox row.
func (b *bed) checkEvents(t testing.TB, payments []paid) {
	t.Helper()
	rows := b.outbox(t)
	for _, p := range payments {
		row, ok := rows[p.EventID.String()]
		if !ok {
			t.Errorf("payment %s has no event %s", p.ID, p.EventID)
			continue
		}
		got, err := event.Decode(row.Type, row.Payload)
		if err != nil {
			t.Error(err)
		}
		want := event.Payment{
			PaymentID: p.ID.String(), ReservationID: p.ReservationID.String(), UserID: p.UserID.String(), Status: event.Status(p.Status),
			Amount: event.Amount(p.Amount), ExecutedAt: p.ExecutedAt,
		}
		if p.Failure != nil {
			want.FailureCode = event.FailureCode(p.Failure.Code)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if row.AggregateType != "payment" || row.AggregateID != p.ReservationID.String() || !row.CreatedAt.Equal(p.ExecutedAt) {
			t.Errorf("got %+v", row)
		}
	}
}

func TestEveryReservationEndsAsAPayment(t *testing.T) {
	b := newBed(t, nil)
	user, other := b.user(t, 30000), b.user(t, 1000)
	expired := b.send(t, "POST", "/v1/reservations", fmt.Sprintf(`{"user_id": %q, "seat": "B-1", "price": {"value": 10, "currency": "KRW"}, "expires_at": "2020-01-01T00:00:00+09:00"}`, user))
	cancelled, paidBefore, good, dear, cheap := b.reservation(t, user, 10), b.reservation(t, user, 100), b.reservation(t, user, 20000), b.reservation(t, user, 15000), b.reservation(t, user, 9900)
	foreign := b.reservation(t, other, 10)
	b.exec(t, `UPDATE payment.reservations SET status = 'CANCELLED' WHERE id = $1`, cancelled)
	if got := outcomes(b.pay(t, user, paidBefore)); got[0] != "COMPLETED" {
		t.Fatal(got)
	}
	ids := []uuid.UUID{foreign, value[created](t, expired).ID, cancelled, paidBefore, good, dear, cheap}
	payments := b.pay(t, user, ids...)
	want := []string{"FAILED not_owner", "FAILED expired", "FAILED cancelled", "FAILED already_paid", "COMPLETED", "FAILED insufficient_balance", "COMPLETED"}
	if diff := cmp.Diff(want, outcomes(payments)); diff != "" {
		t.Error(diff)
	}
	for i, p := range payments {
		if p.ReservationID != ids[i] || p.UserID != user {
			t.Errorf("payment %d is %+v, want reservation %s", i, p, ids[i])
		}
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 0 {
		t.Errorf("the balance is %d, want 0", got)
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, other); got != 1000 {
		t.Errorf("the other user's balance is %d, want 1000", got)
	}
	if got := len(b.outbox(t)); got != 8 {
		t.Errorf("%d events, want 8", got)
	}
	b.checkEvents(t, payments)
	counted := map[string]float64{
		"payments_failures_total{reason=already_paid}": 1, "payments_failures_total{reason=cancelled}": 1, "payments_failures_total{reason=expired}": 1,
		"payments_failures_total{reason=insufficient_balance}": 1, "payments_failures_total{reason=internal}": 0, "payments_failures_total{reason=not_owner}": 1,
		"payments_outbox_inserted_total{event_type=payment.completed.v1}": 3, "payments_outbox_inserted_total{event_type=payment.failed.v1}": 5,
		"payments_processed_total{currency=KRW,status=completed}": 3, "payments_processed_total{currency=KRW,status=failed}": 5,
	}
	if diff := cmp.Diff(counted, b.counters(t, "payments_failures_total", "payments_outbox_inserted_total", "payments_processed_total")); diff != "" {
		t.Error(diff)
	}
}

func TestATechnicalFailureUndoesOnlyItsOwnPayment(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	first, broken, last := b.reservation(t, user, 100), b.reservation(t, user, 200), b.reservation(t, user, 300)
	// Fails after the payment, the money and the reservation are written.
	b.exec(t, fmt.Sprintf(`
		CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.status = 'COMPLETED' AND EXISTS (SELECT FROM payment.payments WHERE id = NEW.payment_id AND reservation_id = '%s') THEN RAISE EXCEPTION 'disk on fire'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse_one BEFORE INSERT ON payment.history FOR EACH ROW EXECUTE FUNCTION refuse_one()`, broken))
	payments := b.pay(t, user, first, broken, last)
	if diff := cmp.Diff([]string{"COMPLETED", "FAILED internal", "COMPLETED"}, outcomes(payments)); diff != "" {
		t.Error(diff)
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 600 {
		t.Errorf("the balance is %d, want 600", got)
	}
	if got := scan[string](t, b, `SELECT status FROM payment.reservations WHERE id = $1`, broken); got != "RESERVED" {
		t.Errorf("the reservation is %s, want RESERVED", got)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments`); got != 3 {
		t.Errorf("%d payments, want 3", got)
	}
	if got := len(b.outbox(t)); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
	b.checkEvents(t, payments)
	b.exec(t, `DROP TRIGGER refuse_one ON payment.history`)
	if got := outcomes(b.pay(t, user, broken)); got[0] != "COMPLETED" {
		t.Errorf("afterwards: %s", got)
	}
	if !strings.Contains(b.log.String(), "disk on fire") {
		t.Error("the log does not say why")
	}
}

func TestWhenNothingCanBeRecordedNothingIs(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	first, second := b.reservation(t, user, 100), b.reservation(t, user, 200)
	b.exec(t, `REVOKE INSERT ON public.outbox FROM payment_app`)
	r := b.send(t, "POST", "/v1/payments", payBody(user, first, second), "Idempotency-Key", "k-1")
	if got := value[problem](t, r); r.status != http.StatusInternalServerError || got.Code != "internal" {
		t.Errorf("got %s", r)
	}
	for _, word := range []string{"outbox", "SQLSTATE", "permission"} {
		if strings.Contains(string(r.body), word) {
			t.Errorf("the answer tells the client of %q: %s", word, r)
		}
	}
	if got := scan[int64](t, b, `SELECT (SELECT count(*) FROM payment.payments) + (SELECT count(*) FROM payment.idempotency_keys)`); got != 0 {
		t.Errorf("%d rows are left", got)
	}
	b.exec(t, `GRANT INSERT ON public.outbox TO payment_app`)
	if r := b.send(t, "POST", "/v1/payments", payBody(user, first, second), "Idempotency-Key", "k-1"); r.status != http.StatusCreated || r.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the same key afterwards: %s", r)
	}
}

// all runs f n times at once.
func all(n int, f func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

func TestOneReservationPaidByManyIsPaidOnce(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1_000_000)
	reservation := b.reservation(t, user, 100)
	var mu sync.Mutex
	counts := map[string]int{}
	all(200, func(int) {
		outcome := b.pay(t, user, reservation)[0].outcome()
		mu.Lock()
		defer mu.Unlock()
		counts[outcome]++
	})
	if diff := cmp.Diff(map[string]int{"COMPLETED": 1, "FAILED already_paid": 199}, counts); diff != "" {
		t.Error(diff)
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 999_900 {
		t.Errorf("the balance is %d, want 999900", got)
	}
}

// Requests that touch the same rows in different orders, with too little money
// for all of them.
func TestPaymentsThatCrossNeitherDeadlockNorOverdraw(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	ids := make([]uuid.UUID, 16)
	for i := range ids {
		ids[i] = b.reservation(t, user, 100)
	}
	all(48, func(i int) {
		turned := append(append([]uuid.UUID{}, ids[i%16:]...), ids[:i%16]...)
		b.pay(t, user, turned[:5]...)
		b.send(t, "GET", "/v1/payments?user_id="+user.String(), "")
	})
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 0 {
		t.Errorf("the balance is %d, want 0", got)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments WHERE status = 'COMPLETED'`); got != 10 {
		t.Errorf("%d completed, want 10", got)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM public.outbox`); got != 240 {
		t.Errorf("%d events, want 240", got)
	}
	for _, line := range []string{"40P01", "40001"} {
		if strings.Contains(b.log.String(), line) {
			t.Errorf("the log tells of %s", line)
		}
	}
}

// Reservations do not share a lock here; the user's balance is all that the
// requests have in common. All of them have come as far as that row before the
// first one gets it.
func TestOneBalanceIsSpentByManyWithoutFailingTechnically(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 500)
	ids := make([]uuid.UUID, 12)
	for i := range ids {
		ids[i] = b.reservation(t, user, 100)
	}
	release := b.holdUsers(t)
	counts := make(chan string, len(ids))
	for _, id := range ids {
		go func() {
			outcome := "no payment" // also when pay ends this goroutine
			defer func() { counts <- outcome }()
			outcome = b.pay(t, user, id)[0].outcome()
		}()
	}
	b.awaitLockWaits(t, len(ids))
	release()
	got := map[string]int{}
	for range ids {
		got[<-counts]++
	}
	if diff := cmp.Diff(map[string]int{"COMPLETED": 5, "FAILED insufficient_balance": 7}, got); diff != "" {
		t.Error(diff)
	}
}

// A request that waits for the reservation with the lowest id holds no other.
func TestReservationsAreLockedInTheOrderOfTheirIDs(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	low, high := b.reservation(t, user, 1), b.reservation(t, user, 1)
	// Now the higher one comes first where the table is read from its beginning.
	b.exec(t, `UPDATE payment.reservations SET seat = 'B' WHERE id = $1`, low)
	b.exec(t, `ANALYZE payment.reservations`)
	tx, err := b.super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM payment.reservations WHERE id = $1 FOR UPDATE`, low); err != nil {
		t.Fatal(err)
	}
	answered := make(chan []paid, 1)
	go func() {
		defer close(answered)
		answered <- b.pay(t, user, high, low)
	}()
	b.awaitLockWaits(t, 1)
	if _, err := tx.Exec(t.Context(), `SELECT FROM payment.reservations WHERE id = $1 FOR UPDATE NOWAIT`, high); err != nil {
		t.Errorf("the reservation with the higher id is locked: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"COMPLETED", "COMPLETED"}, outcomes(<-answered)); diff != "" {
		t.Error(diff)
	}
}

// The constraints hold whatever the code does.
func TestTheDatabaseGuardsTheInvariants(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	p := b.pay(t, user, b.reservation(t, user, 100))[0]
	for name, test := range map[string]struct {
		statement string
		args      []any
	}{
		"a second completed payment": {`INSERT INTO payment.payments SELECT $1, reservation_id, user_id, status, amount, currency, failure_code, executed_at FROM payment.payments WHERE id = $2`, []any{uuid.New(), p.ID}},
		"a negative balance":         {`UPDATE payment.users SET balance = -1 WHERE id = $1`, []any{user}},
		"a foreign currency":         {`INSERT INTO payment.reservations (id, user_id, seat, price, currency, expires_at) VALUES ($1, $2, 'A', 1, 'EUR', now())`, []any{uuid.New(), user}},
		"a failure without code":     {`UPDATE payment.payments SET status = 'FAILED' WHERE id = $1`, []any{p.ID}},
	} {
		_, err := b.super.Exec(t.Context(), test.statement, test.args...)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code[:2] != "23" {
			t.Errorf("%s: got %v, want a violated constraint", name, err)
		}
	}
}

func TestTheApplicationMayOnlyInsertIntoTheOutbox(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	b.pay(t, user, b.reservation(t, user, 100))
	for _, statement := range []string{
		`SELECT * FROM public.outbox`, `SELECT count(*) FROM public.outbox_default`, `UPDATE public.outbox SET type = 'x'`, `DELETE FROM public.outbox`, `TRUNCATE public.outbox`,
		`INSERT INTO public.outbox (aggregatetype, aggregateid, type) VALUES ('a', 'b', 'c') RETURNING id`, `SELECT public.outbox_make_days(1)`, `DROP TABLE public.outbox`,
		`CREATE TABLE payment.mine (a int)`, `UPDATE payment.payments SET status = 'FAILED'`, `DELETE FROM payment.history`, `UPDATE payment.reservations SET price = 1`,
	} {
		_, err := b.app.Exec(t.Context(), statement)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "42501" {
			t.Errorf("%s: got %v, want SQLSTATE 42501", statement, err)
		}
	}
	if _, err := b.app.Exec(t.Context(), `INSERT INTO public.outbox (aggregatetype, aggregateid, type) VALUES ('payment', '1', 'x')`); err != nil {
		t.Errorf("INSERT: %v", err)
	}
}

func TestTheTraceGoesOnInTheEvent(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, test := range map[string]struct {
		headers []string
		want    map[string]string
	}{
		"parent and state":       {[]string{"traceparent", parent, "tracestate", "a=1,b=2"}, map[string]string{"traceparent": parent, "tracestate": "a=1,b=2"}},
		"parent":                 {[]string{"traceparent", parent}, map[string]string{"traceparent": parent}},
		"nothing":                {nil, map[string]string{}},
		"state alone":            {[]string{"tracestate", "a=1"}, map[string]string{}},
		"zero trace id":          {[]string{"traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}, map[string]string{}},
		"zero parent id":         {[]string{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"}, map[string]string{}},
		"capitals":               {[]string{"traceparent", strings.ToUpper(parent)}, map[string]string{}},
		"another version":        {[]string{"traceparent", "01" + parent[2:]}, map[string]string{}},
		"too long":               {[]string{"traceparent", parent + "-x"}, map[string]string{}},
		"a state that is a book": {[]string{"traceparent", parent, "tracestate", "a=" + strings.Repeat("x", 600)}, map[string]string{"traceparent": parent}},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.send(t, "POST", "/v1/payments", payBody(user, b.reservation(t, user, 1)), append(test.headers, "Idempotency-Key", uuid.NewString())...)
			row := b.outbox(t)[paymentsOf(t, r)[0].EventID.String()]
			if diff := cmp.Diff(test.want, row.Headers); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRowsThatOthersHoldAreWaitedForWithALimit(t *testing.T) {
	b := newBed(t, func(c *payment.Config, _ *payment.HandlerConfig) { c.LockTimeout = 50 * time.Millisecond })
	user := b.user(t, 1000)
	reservation := b.reservation(t, user, 100)
	release := b.holdUsers(t)
	r := b.send(t, "POST", "/v1/payments", payBody(user, reservation), "Idempotency-Key", "k-1")
	if got := value[problem](t, r); r.status != http.StatusServiceUnavailable || got.Code != "busy" || r.header.Get("Retry-After") != "1" {
		t.Errorf("got %s %v", r, r.header)
	}
	release()
	if r := b.send(t, "POST", "/v1/payments", payBody(user, reservation), "Idempotency-Key", "k-1"); r.status != http.StatusCreated {
		t.Errorf("afterwards: %s", r)
	}
}

func TestARequestThatTakesTooLongEnds(t *testing.T) {
	b := newBed(t, func(c *payment.Config, _ *payment.HandlerConfig) {
		c.LockTimeout, c.RequestTimeout = 99*time.Millisecond, 100*time.Millisecond
	})
	// Not through the service: these too might take longer than it permits.
	user, reservation := uuid.New(), uuid.New()
	b.exec(t, `INSERT INTO payment.users (id, balance, currency) VALUES ($1, 1000, 'KRW')`, user)
	b.exec(t, `INSERT INTO payment.reservations (id, user_id, seat, price, currency, expires_at) VALUES ($1, $2, 'A-12', 100, 'KRW', now() + interval '1 hour')`, reservation, user)
	body := payBody(user, reservation)
	b.exec(t, `
		CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(20); RETURN NEW; END $$;
		CREATE TRIGGER dawdle BEFORE INSERT ON payment.history FOR EACH ROW EXECUTE FUNCTION dawdle()`)
	r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1")
	if got := value[problem](t, r); r.status != http.StatusServiceUnavailable || got.Code != "timeout" {
		t.Errorf("got %s", r)
	}
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'payment_app'; DROP TRIGGER dawdle ON payment.history`)
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments`); got != 0 {
		t.Errorf("%d payments, want none", got)
	}
}

func TestADeadlockIsTriedAgain(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	reservation := b.reservation(t, user, 100)
	// The first attempt meets a server that undoes it for another's sake.
	b.exec(t, `
		CREATE SEQUENCE attempts;
		GRANT USAGE ON SEQUENCE attempts TO payment_app;
		CREATE FUNCTION undo_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'undone' USING ERRCODE = '40P01'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER undo_once BEFORE INSERT ON payment.history FOR EACH ROW EXECUTE FUNCTION undo_once()`)
	if got := outcomes(b.pay(t, user, reservation)); got[0] != "COMPLETED" {
		t.Errorf("got %s", got)
	}
	if diff := cmp.Diff(map[string]float64{"payments_tx_retries_total{sqlstate=40001}": 0, "payments_tx_retries_total{sqlstate=40P01}": 1}, b.counters(t, "payments_tx_retries_total")); diff != "" {
		t.Error(diff)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments`); got != 1 {
		t.Errorf("%d payments, want 1", got)
	}
}

func TestAConnectionThatBreaksIsNoPayment(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	reservation := b.reservation(t, user, 100)
	b.exec(t, `
		CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
		CREATE TRIGGER die BEFORE INSERT ON payment.history FOR EACH ROW EXECUTE FUNCTION die()`)
	r := b.send(t, "POST", "/v1/payments", payBody(user, reservation), "Idempotency-Key", "k-1")
	if got := value[problem](t, r); r.status != http.StatusServiceUnavailable || got.Code != "unavailable" {
		t.Errorf("got %s", r)
	}
	b.exec(t, `DROP TRIGGER die ON payment.history`)
	r = b.send(t, "POST", "/v1/payments", payBody(user, reservation), "Idempotency-Key", "k-1")
	if r.status != http.StatusCreated || paymentsOf(t, r)[0].Status != "COMPLETED" {
		t.Errorf("afterwards: %s", r)
	}
	if err := b.service.Ready(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}
