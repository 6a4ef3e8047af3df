package payment

import (
	"net/http"
	"strings"
)

// traceHeaders returns the W3C trace context of a request as headers for the
// outbox, so that the record continues the caller's trace. What breaks the
// format is left out: a bad header must not fail a payment, nor reach consumers.
func traceHeaders(header http.Header) map[string]string {
	parents := header.Values("traceparent")
	if len(parents) != 1 || !isTraceParent(parents[0]) {
		return nil
	}
	trace := map[string]string{"traceparent": parents[0]}
	if state := strings.Join(header.Values("tracestate"), ","); state != "" && isTraceState(state) {
		trace["tracestate"] = state
	}
	return trace
}

// isTraceParent accepts version 00: 00-<trace id>-<parent id>-<flags>, neither id
// all zeros. Later versions are not passed on, as nobody can check them here.
func isTraceParent(s string) bool {
	const traceID, parentID, flags = 3, 36, 53
	if len(s) != 55 || s[:traceID] != "00-" || s[parentID-1] != '-' || s[flags-1] != '-' {
		return false
	}
	trace, parent := s[traceID:parentID-1], s[parentID:flags-1]
	return isLowerHex(trace) && isLowerHex(parent) && isLowerHex(s[flags:]) && strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != ""
}

func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// maxTraceStateBytes is what every system has to pass on at least.
const maxTraceStateBytes = 512

func isTraceState(s string) bool {
	return len(s) <= maxTraceStateBytes && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' })
}
