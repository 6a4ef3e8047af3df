package payment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
)

// headerRequestID names a request in the answer and in the log.
const headerRequestID = "X-Request-Id"

// errOverload is the cause of a refusal, for the log.
var errOverload = errors.New("as many requests as allowed are being worked on")

// ServeHTTP is what surrounds every route: request id, metrics, the time limit,
// the limit of requests at once, and the answer to a panic.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began, method := time.Now(), boundedMethod(r.Method)
	active := a.service.metrics.active.WithLabelValues(method)
	active.Inc()
	defer active.Dec()
	ctx, cancel := context.WithTimeout(r.Context(), a.service.requestTimeout)
	defer cancel()
	r = r.WithContext(ctx) // our copy: the mux writes Pattern into it
	rec := &recorder{ResponseWriter: w}
	rec.Header().Set(headerRequestID, requestID(r.Header))
	defer func() {
		if cause := recover(); cause != nil {
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause)
			}
			a.fail(rec, r, internal(fmt.Errorf("panic: %v\n%s", cause, debug.Stack())))
		}
		took := time.Since(began)
		a.service.metrics.observe(method, routeOf(r.Pattern), rec.status, r.ContentLength, took)
		a.logger.LogAttrs(r.Context(), slog.LevelDebug, "request answered", slog.String(keyMethod, method), slog.String(keyPath, r.URL.Path),
			slog.Int(keyStatus, rec.status), slog.Duration(keyTook, took), slog.String(keyRequestID, rec.Header().Get(headerRequestID)))
	}()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
		a.mux.ServeHTTP(rec, r)
	default:
		a.fail(rec, r, busy(errOverload))
	}
}

// fail answers an error and logs what is our side's fault.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	if rec, ok := w.(*recorder); ok && rec.status != 0 {
		a.logger.Error("a request failed after its answer had begun", keyPath, r.URL.Path, keyError, err)
		return
	}
	if problem.Status >= 500 && !errors.Is(err, context.Canceled) {
		level := slog.LevelWarn
		if problem.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
		a.logger.Log(r.Context(), level, "a request failed", keyMethod, boundedMethod(r.Method), keyPath, r.URL.Path, keyStatus, problem.Status,
			keyCode, problem.Code, keyRequestID, w.Header().Get(headerRequestID), keyError, err)
	}
	problem.write(w, r)
}

// routeOf makes a label of a mux pattern: bounded, and without the method.
func routeOf(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	if pattern == "" || pattern == "/" {
		return "unmatched"
	}
	return pattern
}

// maxRequestIDBytes is the length of the longest id that is taken over.
const maxRequestIDBytes = 128

// requestID takes the client's id over if it is harmless in a log, or makes one.
func requestID(header http.Header) string {
	id := header.Get(headerRequestID)
	if id == "" || len(id) > maxRequestIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return uuid.NewString()
	}
	return id
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int // zero: nothing is written yet
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
