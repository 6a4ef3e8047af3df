package payment

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Problem is an answer of RFC 9457. As an error it carries the answer from
// wherever it was found to the client; Cause stays here.
type Problem struct {
	Status     int           // of HTTP
	Code       string        // stable word; problems.md has one chapter per code
	Title      string        // the same for every problem of the code
	Detail     string        // about this one; nothing that the client must not know
	Violations []Violation   // of the request, all of them
	RetryAfter time.Duration // when trying again may help; zero: not by itself
	Allow      string        // methods, with 405
	Cause      error         // for the log only
}

// Violation is one thing wrong with a request.
type Violation struct {
	Pointer   string `json:"pointer,omitempty"`   // into the body: #/reservation_ids/0
	Parameter string `json:"parameter,omitempty"` // of the query
	Code      string `json:"code"`                // stable word
	Detail    string `json:"detail"`
}

func (p *Problem) Error() string {
	text := p.Code
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	if p.Cause != nil {
		text += ": " + p.Cause.Error()
	}
	return text
}

func (p *Problem) Unwrap() error { return p.Cause }

// The problems. A function each, because every answer owns its value.
func notFound(detail string) *Problem {
	return &Problem{Status: http.StatusNotFound, Code: "not_found", Title: "There is no such resource", Detail: detail}
}

func methodNotAllowed(allow string) *Problem {
	return &Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "The resource does not know this method", Detail: "It knows " + allow + ".", Allow: allow}
}

func unauthorized() *Problem {
	return &Problem{Status: http.StatusUnauthorized, Code: "unauthorized", Title: "An API key is needed", Detail: "Send Authorization: Bearer KEY with a key of this service."}
}

func badRequest(code, title, detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: code, Title: title, Detail: detail}
}

func malformed(detail string) *Problem {
	return badRequest("malformed_body", "The body is not one JSON value", detail)
}

func invalidQuery(violations []Violation) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "invalid_query", Title: "The query has wrong parameters", Violations: violations}
}

func invalidBody(violations []Violation) *Problem {
	return &Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_body", Title: "The body has wrong content", Violations: violations}
}

func bodyTooLarge(limit int64) *Problem {
	return &Problem{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Title: "The body is too large", Detail: "At most " + strconv.FormatInt(limit, 10) + " bytes are read."}
}

func unsupportedMediaType() *Problem {
	return &Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Title: "The body's type is not supported", Detail: "Send Content-Type: application/json."}
}

func keyMissing() *Problem {
	return badRequest("idempotency_key_missing", "An Idempotency-Key is needed", "Send a header Idempotency-Key that is new for every new request, such as a UUID, and the same for every repetition.")
}

func keyInvalid(detail string) *Problem {
	return badRequest("idempotency_key_invalid", "The Idempotency-Key cannot be read", detail)
}

func keyReused() *Problem {
	return &Problem{Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused", Title: "The Idempotency-Key belongs to another request", Detail: "This key was sent before with another body or to another resource. Take a new key for a new request."}
}

func keyInProgress(retryAfter time.Duration) *Problem {
	return &Problem{Status: http.StatusConflict, Code: "idempotency_key_in_progress", Title: "The same request is still being worked on", Detail: "Send it again to have its answer.", RetryAfter: retryAfter}
}

func busy(cause error) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Code: "busy", Title: "Others work on the same rows, or there is too much work", Detail: "Nothing was done. Send the request again.", RetryAfter: time.Second, Cause: cause}
}

// timedOut may come out of a COMMIT, so that nobody knows what was done.
func timedOut(cause error) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Code: "timeout", Title: "The request took too long", Detail: "Send the request again, with the same Idempotency-Key: whatever was done is not done twice.", RetryAfter: time.Second, Cause: cause}
}

func unavailable(cause error) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Title: "The database cannot be reached", Detail: "Send the request again, with the same Idempotency-Key: whatever was done is not done twice.", RetryAfter: time.Second, Cause: cause}
}

func internal(cause error) *Problem {
	return &Problem{Status: http.StatusInternalServerError, Code: "internal", Title: "The service failed", Detail: "The request_id finds the reason in the service's log.", Cause: cause}
}

// SQLSTATEs that mean something to us.
const (
	sqlDeadlock             = "40P01"
	sqlSerializationFailure = "40001"
	sqlLockNotAvailable     = "55P03" // lock_timeout has passed
	sqlQueryCanceled        = "57014"
	sqlInsufficientRights   = "42501"
)

// problemOf makes an answer of any error.
func problemOf(err error) *Problem {
	if problem, ok := errors.AsType[*Problem](err); ok {
		return problem
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return timedOut(err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || errors.Is(err, errConnectionLost) {
		return unavailable(err)
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return internal(err)
	}
	switch pgErr.Code {
	case sqlDeadlock, sqlSerializationFailure, sqlLockNotAvailable, sqlQueryCanceled:
		return busy(err)
	}
	switch pgErr.Code[:2] {
	case "08", "53", "57", "58": // connection, resources, the administrator, the machine
		return unavailable(err)
	}
	return internal(err)
}

// problemBody is the body of application/problem+json.
type problemBody struct {
	Type      string      `json:"type"`
	Title     string      `json:"title"`
	Status    int         `json:"status"`
	Detail    string      `json:"detail,omitempty"`
	Instance  string      `json:"instance"`
	Code      string      `json:"code"`
	RequestID string      `json:"request_id"`
	Errors    []Violation `json:"errors,omitempty"`
}

// problemTypes is the page with a chapter per code.
const problemTypes = "https://github.com/cdc-relay/cdc-relay/blob/main/payment/problems.md#"

func (p *Problem) write(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if p.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.Allow != "" {
		header.Set("Allow", p.Allow)
	}
	if p.Status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(problemBody{
		Type: problemTypes + p.Code, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: r.URL.Path,
		Code: p.Code, RequestID: header.Get(headerRequestID), Errors: p.Violations,
	})
	if err != nil {
		panic("a problem is plain strings and numbers: " + err.Error())
	}
	writeBody(w, p.Status, "application/problem+json", body)
}
