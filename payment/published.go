package payment

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Relay asks the admin port of a cdc-relay what is in Kafka.
type Relay struct {
	base   *url.URL
	client *http.Client
}

// relayWait is how long the relay may wait for an event that is under way;
// relayTimeout bounds the whole question.
const (
	relayWait    = time.Second
	relayTimeout = 3 * time.Second
)

// NewRelay returns a Relay for an address such as http://127.0.0.1:9790.
func NewRelay(address string) (*Relay, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("relay address: want http://host:port")
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute} // no proxy: it is a neighbour
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Relay{base: base, client: &http.Client{Transport: transport, Timeout: relayTimeout, CheckRedirect: noRedirects}}, nil
}

// Close drops idle connections.
func (r *Relay) Close() { r.client.CloseIdleConnections() }

// published says whether everything committed up to the LSN is in Kafka.
func (r *Relay) published(ctx context.Context, lsn string) (bool, error) {
	target := r.base.JoinPath("published")
	target.RawQuery = url.Values{"lsn": {lsn}, "timeout": {relayWait.String()}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return false, fmt.Errorf("ask the relay: %w", err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return false, fmt.Errorf("ask the relay: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	switch response.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusAccepted:
		return false, nil
	}
	return false, fmt.Errorf("ask the relay: status %d", response.StatusCode)
}
