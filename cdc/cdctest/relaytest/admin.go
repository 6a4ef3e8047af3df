package relaytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Admin speaks to the admin server of a relay.
type Admin struct {
	Addr string // host:port
}

// Status is the part of /status that tests look at.
type Status struct {
	State        cdc.State `json:"state"`
	RecordedLSN  cdc.LSN   `json:"recorded_lsn"`
	ConfirmedLSN cdc.LSN   `json:"confirmed_lsn"`
}

// adminClient keeps no connection: a relay that was killed and one that took
// its place are different servers.
func adminClient() *http.Client {
	return &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// Get fetches a path and returns the status code and the body.
func (a Admin) Get(ctx context.Context, path string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Addr+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := adminClient().Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// Status asks for the status.
func (a Admin) Status(ctx context.Context) (Status, error) {
	var status Status
	code, body, err := a.Get(ctx, "/status")
	if err != nil {
		return status, err
	}
	if code != http.StatusOK {
		return status, fmt.Errorf("/status answered %d: %s", code, body)
	}
	return status, json.Unmarshal(body, &status)
}

// Published asks whether everything up to the LSN is in Kafka; it waits that
// long at the most.
func (a Admin) Published(ctx context.Context, upTo cdc.LSN, timeout time.Duration) (bool, error) {
	query := url.Values{"lsn": {upTo.String()}, "timeout": {timeout.String()}}
	code, body, err := a.Get(ctx, "/published?"+query.Encode())
	switch {
	case err != nil:
		return false, err
	case code == http.StatusOK:
		return true, nil
	case code == http.StatusAccepted:
		return false, nil
	default:
		return false, fmt.Errorf("/published answered %d: %s", code, body)
	}
}

// WaitState waits until the relay is in the state and returns how long it took.
func (a Admin) WaitState(t testing.TB, state cdc.State, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		status, err := a.Status(ctx)
		if err == nil && status.State == state {
			return time.Since(began)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the relay is not %s after %s: state %q, %v", state, patience, status.State, err)
		}
	}
}
