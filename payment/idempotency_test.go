package payment_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment"
)

func TestARepeatedRequestHasItsFirstAnswer(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	reservation := b.reservation(t, user, 100)
	body := payBody(user, reservation)
	first := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1")
	if first.status != http.StatusCreated || first.header.Get("Idempotency-Replayed") != "" {
		t.Fatal(first)
	}
	reordered := `{ "reservation_ids" : ["` + strings.ToUpper(reservation.String()) + `"], "user_id":"` + user.String() + `" }`
	for name, again := range map[string]reply{
		"the same":                b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1"),
		"the key in quotes":       b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", `"k-1"`),
		"the body written anew":   b.send(t, "POST", "/v1/payments", reordered, "Idempotency-Key", "k-1"),
		"with another trace":      b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1", "traceparent", "x"),
		"with another request id": b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1", "X-Request-Id", "x"),
	} {
		if again.status != first.status || string(again.body) != string(first.body) || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: got %s %v, want %s", name, again, again.header, first)
		}
	}
	other := b.send(t, "POST", "/v1/payments", payBody(user, b.reservation(t, user, 100)), "Idempotency-Key", "k-1")
	if other.status != http.StatusUnprocessableEntity || value[problem](t, other).Code != "idempotency_key_reused" {
		t.Errorf("another body: %s", other)
	}
	elsewhere := b.send(t, "POST", "/v1/users", `{}`, "Idempotency-Key", "k-1")
	if elsewhere.status != http.StatusUnprocessableEntity {
		t.Errorf("another path: %s", elsewhere)
	}
	missing := b.send(t, "POST", "/v1/payments", body)
	if missing.status != http.StatusBadRequest || value[problem](t, missing).Code != "idempotency_key_missing" {
		t.Errorf("no key: %s", missing)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments`); got != 1 {
		t.Errorf("%d payments, want 1", got)
	}
	want := map[string]float64{
		"payments_idempotency_total{outcome=new}": 1, "payments_idempotency_total{outcome=replayed}": 5, "payments_idempotency_total{outcome=mismatch}": 2,
		"payments_idempotency_total{outcome=missing}": 1, "payments_idempotency_total{outcome=in_progress}": 0,
	}
	if diff := cmp.Diff(want, b.counters(t, "payments_idempotency_total")); diff != "" {
		t.Error(diff)
	}
}

func TestKeysAreReadBareAndQuoted(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1_000_000)
	long := strings.Repeat("k", payment.MaxKeyBytes)
	for _, test := range []struct {
		key  string
		want int
	}{
		{"a", 201}, {`"b"`, 201}, {`"c\"d\\e"`, 201}, {long, 201}, {`"` + strings.Repeat("q", payment.MaxKeyBytes) + `"`, 201}, {"8e03978e-40d5-43dd-bc93-6894a57f9324", 201},
		{long + "k", 400}, {`"open`, 400}, {`""`, 400}, {`"a"b`, 400}, {`"a\b"`, 400}, {`"a\`, 400}, {"with space", 400}, {"ümlaut", 400}, {"a\tb", 400},
	} {
		r := b.send(t, "POST", "/v1/payments", payBody(user, b.reservation(t, user, 1)), "Idempotency-Key", test.key)
		if r.status != test.want {
			t.Errorf("%q: got %s, want %d", test.key, r, test.want)
		}
		if test.want == 400 && value[problem](t, r).Code != "idempotency_key_invalid" {
			t.Errorf("%q: got %s", test.key, r)
		}
	}
}

func TestWhatFailedLeavesTheKeyFree(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	reservation := b.reservation(t, user, 100)
	for _, body := range []string{payBody(user, uuid.New()), payBody(uuid.New(), reservation), payBody(user), `{}`} {
		if r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1"); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %s", body, r)
		}
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.idempotency_keys`); got != 0 {
		t.Errorf("%d keys are stored", got)
	}
	if r := b.send(t, "POST", "/v1/payments", payBody(user, reservation), "Idempotency-Key", "k-1"); r.status != http.StatusCreated {
		t.Errorf("the corrected request: %s", r)
	}
}

func TestManyRequestsOfOneKeyArePaidOnce(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	body := payBody(user, b.reservation(t, user, 100), b.reservation(t, user, 100))
	var mu sync.Mutex
	answers, fresh := map[string]int{}, 0
	all(200, func(int) {
		r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.status == http.StatusCreated:
			answers[string(r.body)]++
			if r.header.Get("Idempotency-Replayed") == "" {
				fresh++
			}
		case r.status != http.StatusConflict || r.header.Get("Retry-After") == "":
			t.Errorf("got %s %v", r, r.header)
		}
	})
	if len(answers) != 1 || fresh != 1 {
		t.Errorf("%d answers, %d of them fresh: %v", len(answers), fresh, answers)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM payment.payments`); got != 2 {
		t.Errorf("%d payments, want 2", got)
	}
	if got := scan[int64](t, b, `SELECT count(*) FROM public.outbox`); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 800 {
		t.Errorf("the balance is %d, want 800", got)
	}
}

func TestAKeyInProgressIsAConflictAfterTheWait(t *testing.T) {
	b := newBed(t, func(c *payment.Config, _ *payment.HandlerConfig) { c.LockTimeout = 50 * time.Millisecond })
	user := b.user(t, 1000)
	body := payBody(user, b.reservation(t, user, 100))
	tx, err := b.super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO payment.idempotency_keys (client, key, fingerprint, expires_at) VALUES ('', 'k-1', '', now() + interval '1 day')`); err != nil {
		t.Fatal(err)
	}
	r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1")
	if r.status != http.StatusConflict || value[problem](t, r).Code != "idempotency_key_in_progress" || r.header.Get("Retry-After") != "1" {
		t.Errorf("got %s %v", r, r.header)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1"); r.status != http.StatusCreated {
		t.Errorf("after the other one failed: %s", r)
	}
}

func TestExpiredKeysAreFreeAndSwept(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	for _, key := range []string{"expired-1", "expired-2", "kept"} {
		b.send(t, "POST", "/v1/payments", payBody(user, b.reservation(t, user, 1)), "Idempotency-Key", key)
	}
	b.exec(t, `UPDATE payment.idempotency_keys SET expires_at = now() - interval '1 second' WHERE key LIKE 'expired%'`)
	r := b.send(t, "POST", "/v1/payments", payBody(user, b.reservation(t, user, 1)), "Idempotency-Key", "expired-1")
	if r.status != http.StatusCreated || r.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("an expired key for another request: %s", r)
	}
	if swept, err := b.service.SweepKeys(t.Context()); swept != 1 || err != nil {
		t.Errorf("swept %d, %v, want 1", swept, err)
	}
	if got := scan[string](t, b, `SELECT string_agg(key, ' ' ORDER BY key) FROM payment.idempotency_keys`); got != "expired-1 kept" {
		t.Errorf("left: %s", got)
	}
	if got := scan[string](t, b, `SELECT (min(expires_at) - min(created_at))::text FROM payment.idempotency_keys WHERE key = 'kept'`); got != "7 days" {
		t.Errorf("kept for %s, want 7 days", got)
	}
}

func TestClientsDoNotSeeEachOthersKeys(t *testing.T) {
	keys, err := payment.ParseAPIKeys("shop key-of-the-shop-0001\nkiosk key-of-the-kiosk-001\n")
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, func(_ *payment.Config, c *payment.HandlerConfig) { c.Keys = keys })
	shop, kiosk := "Bearer key-of-the-shop-0001", "bearer key-of-the-kiosk-001"
	first := b.send(t, "POST", "/v1/users", `{}`, "Authorization", shop, "Idempotency-Key", "k-1")
	second := b.send(t, "POST", "/v1/users", `{}`, "Authorization", kiosk, "Idempotency-Key", "k-1")
	if first.status != http.StatusCreated || second.status != http.StatusCreated || value[created](t, first) == value[created](t, second) {
		t.Errorf("got %s and %s", first, second)
	}
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer key-of-the-shop-0002", "Basic key-of-the-shop-0001", "key-of-the-shop-0001"} {
		r := b.send(t, "GET", "/v1/payments", "", "Authorization", authorization)
		if r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: got %s", authorization, r)
		}
	}
	if r := b.send(t, "GET", "/openapi.json", ""); r.status != http.StatusOK {
		t.Errorf("the contract: %s", r)
	}
}

func TestKeyFilesAreReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "no key in it",
		"# nothing\n":            "no key in it",
		"shop":                   "line 1: want NAME KEY",
		"\nshop secret-1 x":      "line 2: want NAME KEY",
		"shop too-short-secret":  "",
		"shop short-5ecret":      "line 1: the key of shop is shorter",
		"a 0123456789abcdef\nb ": "line 2",
	} {
		_, err := payment.ParseAPIKeys(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "5ecret") {
			t.Errorf("%q: the key is in %v", text, err)
		}
	}
}
