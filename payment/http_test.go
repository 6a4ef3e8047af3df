package payment_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/cdc-relay/cdc-relay/payment"
)

func TestAllThatIsWrongWithABodyIsTold(t *testing.T) {
	b := newBed(t, nil)
	user, other := b.user(t, 1000), uuid.New()
	reservation := b.reservation(t, user, 100)
	id := func(id uuid.UUID) string { return `"` + id.String() + `"` }
	ids := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = id(uuid.New())
		}
		return strings.Join(list, ",")
	}
	tests := []struct {
		name, path, body string
		status           int
		want             []string // pointer and code, or the problem's code
	}{
		{"nothing", "/v1/payments", " ", 400, []string{"malformed_body"}},
		{"no JSON", "/v1/payments", "{", 400, []string{"malformed_body"}},
		{"two values", "/v1/payments", "{} {}", 400, []string{"malformed_body"}},
		{"no UTF-8", "/v1/users", "{\"a\": \"\xff\"}", 400, []string{"malformed_body"}},
		{"too much", "/v1/payments", `{"a": "` + strings.Repeat("x", payment.MaxBodyBytes) + `"}`, 413, []string{"body_too_large"}},
		{"no object", "/v1/payments", "[]", 422, []string{"# type"}},
		{"null", "/v1/payments", "null", 422, []string{"# type"}},
		{"empty", "/v1/payments", "{}", 422, []string{"#/user_id required", "#/reservation_ids required"}},
		{"unknown fields", "/v1/payments", payBody(user, reservation)[:1] + `"b~/": 1, "a": 2, ` + payBody(user, reservation)[1:], 422, []string{"#/a unknown_field", "#/b~0~1 unknown_field"}},
		{"another case", "/v1/payments", strings.Replace(payBody(user, reservation), "user_id", "User_ID", 1), 422, []string{"#/user_id required", "#/User_ID unknown_field"}},
		{"a field twice", "/v1/payments", `{"user_id": ` + id(user) + `, ` + payBody(user, reservation)[1:], 422, []string{"#/user_id duplicate"}},
		{"wrong types", "/v1/payments", `{"user_id": 5, "reservation_ids": "x"}`, 422, []string{"#/user_id type", "#/reservation_ids type"}},
		{"nulls", "/v1/payments", `{"user_id": null, "reservation_ids": null}`, 422, []string{"#/user_id type", "#/reservation_ids type"}},
		{"wrong ids", "/v1/payments", `{"user_id": "x", "reservation_ids": [7, "{` + user.String() + `}", ` + id(other) + `, ` + id(other) + `]}`, 422,
			[]string{"#/user_id format", "#/reservation_ids/0 type", "#/reservation_ids/1 format", "#/reservation_ids/3 repeated"}},
		{"no reservation", "/v1/payments", `{"user_id": ` + id(user) + `, "reservation_ids": []}`, 422, []string{"#/reservation_ids length"}},
		{"51 reservations", "/v1/payments", `{"user_id": ` + id(user) + `, "reservation_ids": [` + ids(51) + `]}`, 422, []string{"#/reservation_ids length"}},
		{"unknown ids", "/v1/payments", payBody(other, reservation, uuid.New()), 422, []string{"#/user_id unknown", "#/reservation_ids/1 unknown"}},
		{"a balance below zero", "/v1/users", `{"balance": {"value": -1, "currency": "KRW"}}`, 422, []string{"#/balance/value range"}},
		{"a balance without currency", "/v1/users", `{"balance": {"value": 1, "x": 1}}`, 422, []string{"#/balance/currency required", "#/balance/x unknown_field"}},
		{"a balance that is a number", "/v1/users", `{"balance": 1}`, 422, []string{"#/balance type"}},
		{"an empty balance", "/v1/users", `{"balance": {}}`, 422, []string{"#/balance/value required", "#/balance/currency required"}},
		{"a fraction", "/v1/users", `{"balance": {"value": 1.0, "currency": "KRW"}}`, 422, []string{"#/balance/value type"}},
		{"an exponent", "/v1/users", `{"balance": {"value": 1e3, "currency": "KRW"}}`, 422, []string{"#/balance/value type"}},
		{"a string", "/v1/users", `{"balance": {"value": "1", "currency": "KRW"}}`, 422, []string{"#/balance/value type"}},
		{"too much money", "/v1/users", `{"balance": {"value": 9007199254740992, "currency": "KRW"}}`, 422, []string{"#/balance/value range"}},
		{"more than an int64", "/v1/users", `{"balance": {"value": 99999999999999999999, "currency": "KRW"}}`, 422, []string{"#/balance/value range"}},
		{"no such currency", "/v1/users", `{"balance": {"value": 1, "currency": "XYZ"}}`, 422, []string{"#/balance/currency format"}},
		{"nothing to charge", "/v1/users/" + user.String() + "/charges", `{"amount": {"value": 0, "currency": "KRW"}}`, 422, []string{"#/amount/value range"}},
		{"a charge in another currency", "/v1/users/" + user.String() + "/charges", `{"amount": {"value": 1, "currency": "EUR"}}`, 422, []string{"#/amount/currency wrong_currency"}},
		{"a charge past the limit", "/v1/users/" + user.String() + "/charges", `{"amount": {"value": 9007199254740991, "currency": "KRW"}}`, 422, []string{"#/amount/value too_large"}},
		{"a charge for nobody", "/v1/users/" + other.String() + "/charges", `{"amount": {"value": 1, "currency": "KRW"}}`, 404, []string{"not_found"}},
		{"a reservation for nobody", "/v1/reservations", `{"user_id": ` + id(other) + `, "seat": "A", "price": {"value": 1, "currency": "KRW"}}`, 422, []string{"#/user_id unknown"}},
		{"a price in another currency", "/v1/reservations", `{"user_id": ` + id(user) + `, "seat": "A", "price": {"value": 1, "currency": "EUR"}}`, 422, []string{"#/price/currency wrong_currency"}},
		{"a seat of control characters", "/v1/reservations", `{"user_id": ` + id(user) + `, "seat": "\u0000", "price": {"value": 1, "currency": "KRW"}, "expires_at": "soon"}`, 422, []string{"#/seat format", "#/expires_at format"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := b.send(t, "POST", test.path, test.body, "Idempotency-Key", uuid.NewString())
			p := value[problem](t, r)
			if r.status != test.status || p.Status != test.status || r.header.Get("Content-Type") != "application/problem+json" || p.RequestID != r.header.Get("X-Request-Id") {
				t.Fatalf("got %s", r)
			}
			var got []string
			for _, e := range p.Errors {
				got = append(got, e.Pointer+" "+e.Code)
			}
			if len(got) == 0 {
				got = []string{p.Code}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := scan[int64](t, b, `SELECT (SELECT count(*) FROM payment.payments) + (SELECT count(*) FROM payment.users) + (SELECT count(*) FROM payment.reservations)`); got != 2 {
		t.Errorf("%d rows, want the user and the reservation of the beginning", got)
	}
}

func TestFiftyReservationsInOneRequest(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 50)
	ids := make([]uuid.UUID, payment.MaxReservations)
	for i := range ids {
		ids[i] = b.reservation(t, user, 1)
	}
	for i, p := range b.pay(t, user, ids...) {
		if p.Status != "COMPLETED" || p.ReservationID != ids[i] {
			t.Errorf("payment %d: %+v", i, p)
		}
	}
}

func TestChargesAddUpAndAreRepeatable(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1)
	path, body := "/v1/users/"+user.String()+"/charges", `{"amount": {"value": 10, "currency": "KRW"}}`
	for range 2 {
		if r := b.send(t, "POST", path, body); r.status != http.StatusCreated {
			t.Fatal(r)
		}
	}
	for range 3 {
		r := b.send(t, "POST", path, body, "Idempotency-Key", "once")
		if got := value[struct{ Balance payment.Money }](t, r).Balance; got != (payment.Money{Value: 31, Currency: "KRW"}) {
			t.Errorf("got %s", r)
		}
	}
	if got := scan[int64](t, b, `SELECT balance FROM payment.users WHERE id = $1`, user); got != 31 {
		t.Errorf("the balance is %d, want 31", got)
	}
}

func TestReservationsAreReadBack(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	made := b.send(t, "POST", "/v1/reservations", fmt.Sprintf(`{"user_id": %q, "seat": "제1열 3", "price": {"value": 7, "currency": "KRW"}, "expires_at": "2030-05-06T07:08:09+09:00"}`, user))
	read := b.send(t, "GET", made.header.Get("Location"), "")
	if string(read.body) != string(made.body) || !strings.Contains(string(read.body), `"expires_at":"2030-05-05T22:08:09Z"`) {
		t.Errorf("got %s, made %s", read, made)
	}
	b.pay(t, user, value[created](t, made).ID)
	if r := b.send(t, "GET", made.header.Get("Location"), ""); !strings.Contains(string(r.body), `"status":"PAID"`) {
		t.Errorf("after the payment: %s", r)
	}
}

func TestPaymentsAreReadBack(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 100)
	for _, p := range b.pay(t, user, b.reservation(t, user, 60), b.reservation(t, user, 60)) {
		if diff := cmp.Diff(p, value[paid](t, b.send(t, "GET", "/v1/payments/"+p.ID.String(), ""))); diff != "" {
			t.Error(diff)
		}
		history := b.send(t, "GET", "/v1/payments/"+p.ID.String()+"/history", "")
		if !strings.Contains(string(history.body), p.EventID.String()) || !strings.Contains(string(history.body), p.Status) {
			t.Errorf("got %s", history)
		}
	}
	for _, path := range []string{"/v1/payments/", "/v1/payments/%s/history", "/v1/payments/%s/events", "/v1/reservations/"} {
		for _, id := range []string{uuid.NewString(), "no-uuid", "%00"} {
			full := path + id
			if strings.Contains(path, "%s") {
				full = strings.Replace(path, "%s", id, 1)
			}
			if r := b.send(t, "GET", full, ""); r.status != http.StatusNotFound {
				t.Errorf("%s: got %s", full, r)
			}
		}
	}
}

type page struct {
	Data       []paid  `json:"data"`
	HasMore    bool    `json:"has_more"`
	NextCursor *string `json:"next_cursor"`
}

func TestPagesHoldEveryPaymentOnce(t *testing.T) {
	b := newBed(t, nil)
	user, other := b.user(t, 4), b.user(t, 10)
	reservation := b.reservation(t, user, 1)
	var want []uuid.UUID // the newest first
	for range 3 {
		for _, p := range b.pay(t, user, reservation, b.reservation(t, user, 1)) {
			want = append([]uuid.UUID{p.ID}, want...)
		}
		b.pay(t, other, b.reservation(t, other, 1))
	}
	for limit := 1; limit <= 7; limit++ {
		var got []uuid.UUID
		path := fmt.Sprintf("/v1/payments?user_id=%s&limit=%d", user, limit)
		for path != "" {
			r := b.send(t, "GET", path, "")
			p := value[page](t, r)
			for _, payment := range p.Data {
				got = append(got, payment.ID)
			}
			b.pay(t, other, reservation) // what is added in front moves nothing
			link := regexp.MustCompile(`^<(.*)>; rel="next"$`).FindStringSubmatch(r.header.Get("Link"))
			if (link != nil) != p.HasMore || p.HasMore != (p.NextCursor != nil) || len(p.Data) > limit {
				t.Fatalf("got %s %v", r, r.header)
			}
			path = ""
			if link != nil {
				path = link[1]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
	for query, count := range map[string]int{
		"reservation_id=" + reservation.String() + "&user_id=" + user.String(): 3,
		"status=COMPLETED&user_id=" + user.String():                            4,
		"status=FAILED&user_id=" + user.String():                               2,
		"user_id=" + uuid.NewString():                                          0,
	} {
		if r := b.send(t, "GET", "/v1/payments?"+query, ""); len(value[page](t, r).Data) != count {
			t.Errorf("%s: got %s, want %d", query, r, count)
		}
	}
}

func TestWrongQueriesAreRefused(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 10)
	b.pay(t, user, b.reservation(t, user, 1), b.reservation(t, user, 1))
	cursor := *value[page](t, b.send(t, "GET", "/v1/payments?limit=1", "")).NextCursor
	for query, want := range map[string][]string{
		"limit=0":                              {"limit"},
		"limit=101":                            {"limit"},
		"limit=x&status=done&user_id=1":        {"limit", "status", "user_id"},
		"reservation_id=":                      {"reservation_id"},
		"sort=id":                              {"sort"},
		"limit=1&limit=2":                      {"limit"},
		"cursor=":                              {"cursor"},
		"cursor=AAAA":                          {"cursor"},
		"cursor=" + cursor + "&status=FAILED":  {"cursor"},
		"cursor=" + cursor + "A":               {"cursor"},
		"user_id=%zz":                          {""},
		"cursor=" + cursor + cursor + "&x=1;y": {""},
	} {
		r := b.send(t, "GET", "/v1/payments?"+query, "")
		var got []string
		for _, e := range value[problem](t, r).Errors {
			got = append(got, e.Parameter)
		}
		if diff := cmp.Diff(want, got); r.status != http.StatusBadRequest || diff != "" {
			t.Errorf("%s: got %s %s", query, r, diff)
		}
	}
}

// The relay is asked with an LSN at or behind the payment.
func TestEventsSayWhetherTheyArePublished(t *testing.T) {
	status, asked := http.StatusOK, ""
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path + " " + r.URL.Query().Get("lsn")
		w.WriteHeader(status)
	}))
	defer relay.Close()
	client, err := payment.NewRelay(relay.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := newBed(t, func(_ *payment.Config, c *payment.HandlerConfig) { c.Relay = client })
	user := b.user(t, 10)
	p := b.pay(t, user, b.reservation(t, user, 1))[0]
	lsn := scan[string](t, b, `SELECT pg_current_wal_insert_lsn()::text`)
	check := func(want string) {
		t.Helper()
		r := b.send(t, "GET", "/v1/payments/"+p.ID.String()+"/events", "")
		if got := fmt.Sprintf(`{"data":[{"id":"%s","type":"payment.completed.v1","published":%s}]}`+"\n", p.EventID, want); string(r.body) != got {
			t.Errorf("got %s, want %s", r, got)
		}
	}
	check("true")
	path, askedLSN, _ := strings.Cut(asked, " ")
	if path != "/published" || !scan[bool](t, b, `SELECT $1::pg_lsn >= $2::pg_lsn`, askedLSN, lsn) {
		t.Errorf("the relay was asked %s, the payment is before %s", asked, lsn)
	}
	status = http.StatusAccepted
	check("false")
	status = http.StatusBadGateway
	check("null")
	relay.Close()
	check("null")
	for _, address := range []string{"", "localhost:9790", "ftp://x", "http://"} {
		if _, err := payment.NewRelay(address); err == nil {
			t.Errorf("%q was taken for a relay", address)
		}
	}
}

func TestPathsMethodsAndTypesThatAreNoneOfOurs(t *testing.T) {
	b := newBed(t, nil)
	for _, test := range []struct {
		method, path, contentType string
		status                    int
		allow                     string
	}{
		{"GET", "/nowhere", "", 404, ""},
		{"DELETE", "/v1/payments", "", 405, "POST, GET, HEAD"},
		{"PATCH", "/v1/payments/" + uuid.NewString(), "", 405, "GET, HEAD"},
		{"OPTIONS", "/v1/users", "", 405, "POST"},
		{"POST", "/v1/users", "text/plain", 415, ""},
		{"POST", "/v1/users", "application/json; charset=latin1", 415, ""},
		{"POST", "/v1/users", "application/json; charset=UTF-8", 201, ""},
	} {
		body := ""
		if test.contentType != "" {
			body = "{}"
		}
		r := b.send(t, test.method, test.path, body, "Content-Type", test.contentType)
		if r.status != test.status || r.header.Get("Allow") != test.allow {
			t.Errorf("%s %s: got %s %v", test.method, test.path, r, r.header)
		}
	}
	for sent, kept := range map[string]bool{"req-1": true, strings.Repeat("x", 129): false, "a b": false, "": false} {
		r := b.send(t, "GET", "/v1/payments", "", "X-Request-Id", sent)
		if got := r.header.Get("X-Request-Id"); (got == sent) != kept || got == "" {
			t.Errorf("request id %q: got %q", sent, got)
		}
	}
}

func TestMoreRequestsThanAllowedComeAgain(t *testing.T) {
	b := newBed(t, func(_ *payment.Config, c *payment.HandlerConfig) { c.MaxInFlight = 1 })
	user := b.user(t, 1000)
	release := b.holdUsers(t)
	first := make(chan reply, 1)
	go func() {
		defer close(first)
		first <- b.send(t, "POST", "/v1/users/"+user.String()+"/charges", `{"amount": {"value": 10, "currency": "KRW"}}`)
	}()
	b.awaitLockWaits(t, 1)
	r := b.send(t, "GET", "/v1/payments", "")
	if r.status != http.StatusServiceUnavailable || value[problem](t, r).Code != "busy" || r.header.Get("Retry-After") == "" {
		t.Errorf("got %s", r)
	}
	release()
	if r := <-first; r.status != http.StatusCreated {
		t.Errorf("the first request: %s", r)
	}
}

// A client that goes away in the middle leaves nothing behind.
func TestARequestWhoseClientLeavesIsRolledBack(t *testing.T) {
	b := newBed(t, nil)
	user := b.user(t, 1000)
	body := payBody(user, b.reservation(t, user, 10))
	release := b.holdUsers(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	writer := bufio.NewWriter(conn)
	fmt.Fprintf(writer, "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k-1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := writer.Flush(); err != nil {
		t.Fatal(err)
	}
	b.awaitLockWaits(t, 1)
	_ = conn.Close()
	b.awaitLockWaits(t, 0)
	release()
	if r := b.send(t, "POST", "/v1/payments", body, "Idempotency-Key", "k-1"); r.status != http.StatusCreated || r.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("sent again: %s", r)
	}
}

func TestTheContractIsServedAndHasExamplesThatWork(t *testing.T) {
	b := newBed(t, nil)
	if ok, problems := b.contract.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("%s: %s %v", p.Message, p.Reason, p.SchemaValidationErrors)
		}
	}
	r := b.send(t, "GET", "/openapi.json", "")
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct{ Example json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(r.body, &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Fatalf("%v: %.100s", err, r)
	}
	user := b.user(t, 100000)
	reservation := b.reservation(t, user, 15000)
	fill := strings.NewReplacer("0193a5be-0a1b-7c2d-8e3f-4a5b6c7d8e9f", user.String(), "0193a5bf-1c2d-7e3f-8a4b-5c6d7e8f9a0b", reservation.String(), "{id}", user.String())
	posts := 0
	for path, methods := range document.Paths {
		post, ok := methods["post"]
		if !ok {
			continue
		}
		posts++
		example := fill.Replace(string(post.RequestBody.Content["application/json"].Example))
		if r := b.send(t, "POST", fill.Replace(path), example, "Idempotency-Key", uuid.NewString()); r.status != http.StatusCreated {
			t.Errorf("%s %s: %s", path, example, r)
		}
	}
	if posts != 4 {
		t.Errorf("%d POST routes in the contract, want 4", posts)
	}
}

// The validator has to find something, or all tests above would prove nothing
// about the contract.
func TestAnswersOutsideTheContractAreFound(t *testing.T) {
	contract := contractOf(t)
	for name, body := range map[string]string{
		"a field too many": `{"data": [], "has_more": false, "next_cursor": null, "total": 1}`,
		"a field too few":  `{"data": [], "has_more": false}`,
		"a wrong id":       `{"data": [{"id": "x", "type": "t", "published": null}], "has_more": false, "next_cursor": null}`,
	} {
		request := httptest.NewRequest("GET", "/v1/payments", nil)
		if valid(contract, request, body) {
			t.Errorf("%s was not found", name)
		}
	}
	if !valid(contract, httptest.NewRequest("GET", "/v1/payments", nil), `{"data": [], "has_more": false, "next_cursor": null}`) {
		t.Error("a correct answer was refused")
	}
}

func valid(contract validator.Validator, request *http.Request, body string) bool {
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Content-Type", "application/json")
	_, _ = recorder.WriteString(body)
	ok, _ := contract.ValidateHttpResponse(request, recorder.Result())
	return ok
}

func TestEveryProblemHasItsChapter(t *testing.T) {
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	pageText, err := os.ReadFile("problems.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?:Code: |badRequest\()"(\w+)", (?:Title: )?"`).FindAllStringSubmatch(string(source), -1) {
		codes[found[1]] = true
	}
	chapters := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(pageText), -1) {
		chapters[found[1]] = true
	}
	if diff := cmp.Diff(codes, chapters); diff != "" || len(codes) < 16 {
		t.Errorf("%d codes; codes and chapters differ: %s", len(codes), diff)
	}
}
