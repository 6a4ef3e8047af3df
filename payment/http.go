package payment

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"
)

// HandlerConfig is what the HTTP side needs.
type HandlerConfig struct {
	Service *Service
	// Relay is asked what is published; nil leaves it unknown.
	Relay *Relay
	// Keys are needed by every request below /v1; nil lets everybody in.
	Keys *APIKeys
	// MaxInFlight is how many requests are worked on at once; more are told to
	// come again. Default 512.
	MaxInFlight int
}

// api answers the routes.
type api struct {
	service *Service
	relay   *Relay
	keys    *APIKeys
	slots   chan struct{} // one value per request being worked on
	mux     *http.ServeMux
	openAPI []byte
	logger  *slog.Logger
}

// action is what a route does. The client is the name of its API key. An error
// is answered as a problem, so nothing may be written before it.
type action func(w http.ResponseWriter, r *http.Request, client string) error

type route struct {
	method, path string
	do           action
}

// NewHandler returns the API. It never blocks longer than the service's request
// timeout, but for reading a body and writing an answer, which the server bounds.
func NewHandler(cfg HandlerConfig) (http.Handler, error) {
	if cfg.Service == nil {
		return nil, errors.New("payment: HandlerConfig.Service is nil")
	}
	if cfg.MaxInFlight < 0 {
		return nil, errors.New("payment: HandlerConfig.MaxInFlight is negative")
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 512
	}
	document, err := openAPIDocument()
	if err != nil {
		return nil, err
	}
	a := &api{service: cfg.Service, relay: cfg.Relay, keys: cfg.Keys, slots: make(chan struct{}, cfg.MaxInFlight), mux: http.NewServeMux(), openAPI: document, logger: cfg.Service.logger}
	a.handle(a.routes())
	return a, nil
}

func (a *api) routes() []route {
	return []route{
		{http.MethodPost, "/v1/payments", a.postPayments},
		{http.MethodGet, "/v1/payments", a.listPayments},
		{http.MethodGet, "/v1/payments/{id}", a.getPayment},
		{http.MethodGet, "/v1/payments/{id}/history", a.getHistory},
		{http.MethodGet, "/v1/payments/{id}/events", a.getEvents},
		{http.MethodPost, "/v1/users", a.postUser},
		{http.MethodPost, "/v1/users/{id}/charges", a.postCharge},
		{http.MethodPost, "/v1/reservations", a.postReservation},
		{http.MethodGet, "/v1/reservations/{id}", a.getReservation},
		{http.MethodGet, "/openapi.json", a.getOpenAPI},
	}
}

// handle registers the routes, for every path the answer to other methods, and
// one to all other paths.
func (a *api) handle(routes []route) {
	allowed := map[string]string{}
	for _, r := range routes {
		a.mux.HandleFunc(r.method+" "+r.path, a.guarded(r))
		methods := r.method
		if r.method == http.MethodGet {
			methods = "GET, HEAD" // the mux serves HEAD with GET
		}
		if allowed[r.path] != "" {
			methods = allowed[r.path] + ", " + methods
		}
		allowed[r.path] = methods
	}
	for path, methods := range allowed {
		a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { a.fail(w, r, methodNotAllowed(methods)) })
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.fail(w, r, notFound("")) })
}

// guarded asks for the key and answers errors.
func (a *api) guarded(route route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		client := ""
		if a.keys != nil && route.path != "/openapi.json" {
			var ok bool
			if client, ok = a.keys.client(r.Header.Get("Authorization")); !ok {
				a.fail(w, r, unauthorized())
				return
			}
		}
		if err := route.do(w, r, client); err != nil {
			a.fail(w, r, err)
		}
	}
}

// call reads what makes a request the same request: the key, and the body in
// canonical form.
func (a *api) call(r *http.Request, client string, body any) (Call, error) {
	key, err := parseKey(r.Header)
	if err != nil {
		return Call{}, err
	}
	canonical, err := newAnswer(0, "", body)
	if err != nil {
		return Call{}, err
	}
	return Call{Client: client, Key: key, Method: r.Method, Path: r.URL.Path, Body: canonical.Body, Trace: traceHeaders(r.Header)}, nil
}

// post reads a body, and answers it once per Idempotency-Key.
func post[T any](a *api, w http.ResponseWriter, r *http.Request, client string, parse func([]byte) (T, error), do func(Call, T) (Answer, error)) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	req, err := parse(body)
	if err != nil {
		return err
	}
	call, err := a.call(r, client, req)
	if err != nil {
		return err
	}
	answer, err := do(call, req)
	if err != nil {
		return err
	}
	if answer.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	if answer.Location != "" {
		w.Header().Set("Location", answer.Location)
	}
	writeBody(w, answer.Status, "application/json", answer.Body)
	return nil
}

func (a *api) postPayments(w http.ResponseWriter, r *http.Request, client string) error {
	if r.Header.Get("Idempotency-Key") == "" { // before anything else is wrong
		a.service.metrics.idempotency.WithLabelValues(idempotencyMissing).Inc()
		return keyMissing()
	}
	return post(a, w, r, client, parsePay, func(call Call, req payRequest) (Answer, error) { return a.service.pay(r.Context(), call, req) })
}

func (a *api) postUser(w http.ResponseWriter, r *http.Request, client string) error {
	return post(a, w, r, client, parseUser, func(call Call, req userRequest) (Answer, error) { return a.service.createUser(r.Context(), call, req) })
}

func (a *api) postCharge(w http.ResponseWriter, r *http.Request, client string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	return post(a, w, r, client, parseCharge, func(call Call, req chargeRequest) (Answer, error) {
		return a.service.charge(r.Context(), call, id, req)
	})
}

func (a *api) postReservation(w http.ResponseWriter, r *http.Request, client string) error {
	return post(a, w, r, client, parseReservation, func(call Call, req reservationRequest) (Answer, error) {
		return a.service.createReservation(r.Context(), call, req)
	})
}

func (a *api) getPayment(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	p, err := a.service.payment(r.Context(), id)
	if err != nil {
		return err
	}
	return writeAnswer(w, newPaymentAnswer(p))
}

func (a *api) listPayments(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := parsePageQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	page, more, err := a.service.payments(r.Context(), q.filter, q.before, q.limit)
	if err != nil {
		return err
	}
	answer := pageAnswer{Data: paymentAnswers(page), HasMore: more}
	if more {
		cursor := q.filter.cursor(page[len(page)-1].ID)
		answer.NextCursor = &cursor
		next := r.URL.Query()
		next.Set("cursor", cursor)
		w.Header().Set("Link", "<"+(&url.URL{Path: r.URL.Path, RawQuery: next.Encode()}).String()+`>; rel="next"`)
	}
	return writeAnswer(w, answer)
}

func (a *api) getHistory(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	history, err := a.service.history(r.Context(), id)
	if err != nil {
		return err
	}
	answer := historyAnswer{Data: []happeningAnswer{}}
	for _, h := range history {
		answer.Data = append(answer.Data, happeningAnswer{Status: h.Status, EventID: h.EventID, EventType: h.EventType, RecordedAt: h.RecordedAt.UTC()})
	}
	return writeAnswer(w, answer)
}

// getEvents lists the events of a payment and asks the relay whether they are
// published. The outbox is not read: the service has no right to.
func (a *api) getEvents(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	history, err := a.service.history(r.Context(), id)
	if err != nil {
		return err
	}
	var published *bool
	if a.relay != nil {
		lsn, err := a.service.insertLSN(r.Context()) // after the events were seen
		if err != nil {
			return err
		}
		if done, err := a.relay.published(r.Context(), lsn); err == nil {
			published = &done
		} else {
			a.logger.Debug("the relay could not be asked", keyError, err)
		}
	}
	answer := eventsAnswer{Data: []eventAnswer{}}
	for _, h := range history {
		answer.Data = append(answer.Data, eventAnswer{ID: h.EventID, Type: h.EventType, Published: published})
	}
	return writeAnswer(w, answer)
}

func (a *api) getReservation(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	reservation, err := a.service.reservation(r.Context(), id)
	if err != nil {
		return err
	}
	return writeAnswer(w, newReservationAnswer(reservation))
}

func (a *api) getOpenAPI(w http.ResponseWriter, _ *http.Request, _ string) error {
	writeBody(w, http.StatusOK, "application/json", a.openAPI)
	return nil
}

// pathID reads {id}. What is no UUID names nothing.
func pathID(r *http.Request) (uuid.UUID, error) {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return uuid.Nil, notFound("The id in the path is no UUID.")
	}
	return id, nil
}

func writeAnswer(w http.ResponseWriter, body any) error {
	answer, err := newAnswer(http.StatusOK, "", body)
	if err != nil {
		return err
	}
	writeBody(w, answer.Status, "application/json", answer.Body)
	return nil
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone; nobody is left to tell
}
