package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// publishedAnswer is the body of /published with 200 and 202, a contract.
type publishedAnswer struct {
	LSN       cdc.LSN   `json:"lsn"`
	Published bool      `json:"published"` // everything committed up to lsn is in Kafka
	State     cdc.State `json:"state"`
}

// published answers whether everything that was committed up to ?lsn= is in
// Kafka, waiting up to ?timeout= (default 0, at most 30 s): 200 yes, 202 not
// yet, 400 for a question that cannot be read.
func (a *adminServer) published(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	lsn, err := cdc.ParseLSN(query.Get("lsn"))
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	var timeout time.Duration
	if text := query.Get("timeout"); text != "" {
		if timeout, err = time.ParseDuration(text); err != nil || timeout < 0 {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "timeout: want a duration such as 5s"})
			return
		}
	}
	status, done := a.awaitPublished(r, lsn, min(timeout, maxPublishedWait))
	code := http.StatusAccepted
	if done {
		code = http.StatusOK
	}
	writeJSON(w, code, publishedAnswer{LSN: lsn, Published: done, State: status.State})
}

// awaitPublished looks at the status until it covers lsn, the timeout has
// passed or the client has gone. It looks often at first: most questions are
// asked a millisecond before they could be answered.
func (a *adminServer) awaitPublished(r *http.Request, lsn cdc.LSN, timeout time.Duration) (cdc.Status, bool) {
	const firstPause, longestPause = 5 * time.Millisecond, 20 * time.Millisecond
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	pause := firstPause
	for {
		status := a.status()
		if covers(&status, lsn) {
			return status, true
		}
		select {
		case <-r.Context().Done():
			return status, false
		case <-deadline.C:
			return status, false
		case <-time.After(pause):
			pause = min(pause*2, longestPause)
		}
	}
}

// covers says whether everything committed up to lsn is in Kafka.
//
// The active replica knows two proofs: what is recorded, and the end of what it
// received while it owes nothing. Any other replica has only the slot: it is
// acknowledged after the record, never before (confirmed <= recorded).
func covers(s *cdc.Status, lsn cdc.LSN) bool {
	lsn = s.WALPages.EndOfData(lsn)
	if !s.Active {
		return s.SlotConfirmedLSN != 0 && lsn <= s.SlotConfirmedLSN
	}
	return lsn <= s.RecordedLSN || s.OwedRows == 0 && lsn <= s.ReceivedLSN
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // the client has gone; nobody is left to tell
}
