package notifier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// SlackConfig is the one destination.
type SlackConfig struct {
	// WebhookURL is called for every post, so that a rotated URL needs no
	// restart. The URL is a secret: whoever has it can post. Required.
	WebhookURL func() (string, error)
	// AllowInsecure permits http to other hosts than loopback.
	AllowInsecure bool
	// Destination names the channel in metrics and logs; default slack.
	Destination string
	// Interval is the least time between two posts. Slack permits about one
	// message a second; 0 is none.
	Interval time.Duration
	// Timeout of one post; default 10 s. Above 30 s a rebalance may time out.
	Timeout time.Duration
	// RetryMin and RetryMax bound the exponential back-off while Slack is
	// unavailable; default 500 ms and 1 min.
	RetryMin, RetryMax time.Duration
	// RefusedRetry is how often a destination that refuses (403, 404, 410) is
	// asked again; default 1 min.
	RefusedRetry time.Duration
	// TraceURL makes a link of the event's trace; {trace_id} is replaced. Empty: none.
	TraceURL string
}

func (c SlackConfig) withDefaults() SlackConfig {
	if c.Destination == "" {
		c.Destination = "slack"
	}
	for _, setting := range []struct {
		value   *time.Duration
		initial time.Duration
	}{
		{&c.Timeout, 10 * time.Second}, {&c.RetryMin, 500 * time.Millisecond}, {&c.RetryMax, time.Minute}, {&c.RefusedRetry, time.Minute},
	} {
		if *setting.value == 0 {
			*setting.value = setting.initial
		}
	}
	return c
}

func (c SlackConfig) validate() []error {
	var errs []error
	if c.WebhookURL == nil {
		errs = append(errs, errors.New("slack: no webhook URL given"))
	}
	if c.Interval < 0 || c.Timeout < 0 || c.RetryMin < 0 || c.RefusedRetry < 0 || c.RetryMax < c.RetryMin {
		errs = append(errs, errors.New("slack: intervals must not be negative, and the longest retry not below the shortest"))
	}
	return errs
}

// verdict is what an answer means for the event.
type verdict uint8

const (
	delivered   verdict = iota
	rejected            // this message is wrong; it never will be accepted
	refused             // the destination is gone or closed: nothing about this message
	throttled           // too fast; nothing was posted
	unavailable         // Slack is in trouble, nothing was posted
	uncertain           // no answer, or one of something in between: it may have been posted
)

// answer is the outcome of one post. It never holds the URL.
type answer struct {
	verdict    verdict
	code       string        // HTTP status, timeout, connect, connection or config
	word       string        // Slack's word of a closed list, other, or none
	retryAfter time.Duration // throttled only
	err        error         // nil if delivered
}

// slackWords are the words that Slack answers with; others are no metric label.
var slackWords = []string{
	"action_prohibited", "channel_is_archived", "channel_not_found", "invalid_blocks", "invalid_blocks_format", "invalid_payload", "invalid_token",
	"no_service", "no_service_id", "no_team", "no_text", "posting_to_general_channel_denied", "rollup_error", "team_disabled",
	"too_many_attachments", "user_not_found", "ok",
}

const (
	maxAnswerBytes    = 1 << 10
	defaultRetryAfter = time.Second
	maxRetryAfter     = time.Hour
)

// slack posts messages to one incoming webhook.
type slack struct {
	cfg    SlackConfig
	client *http.Client
}

func newSlack(cfg SlackConfig) *slack {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
	}
	return &slack{cfg: cfg, client: &http.Client{
		Transport: transport,
		// A redirect would carry payments to a host that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (s *slack) close() { s.client.CloseIdleConnections() }

// post sends one message once.
func (s *slack) post(ctx context.Context, m Message) answer {
	address, err := s.address()
	if err != nil {
		return answer{verdict: refused, code: "config", word: "none", err: err}
	}
	body, err := m.JSON()
	if err != nil {
		return answer{verdict: rejected, code: "config", word: "none", err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var connected atomic.Bool // from then on the request may have been read
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return answer{verdict: refused, code: "config", word: "none", err: errors.New("the webhook URL makes no request")}
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	response, err := s.client.Do(request)
	if err != nil {
		return noAnswer(withoutURL(err), connected.Load())
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		text = nil // the status says enough
	}
	return classify(response.StatusCode, response.Header.Get("Retry-After"), string(text), time.Now())
}

// address returns the URL, checked; its errors never show it.
func (s *slack) address() (string, error) {
	address, err := s.cfg.WebhookURL()
	if err != nil {
		return "", fmt.Errorf("read the webhook URL: %w", err)
	}
	address = strings.TrimSpace(address)
	return address, CheckWebhookURL(address, s.cfg.AllowInsecure)
}

// CheckWebhookURL says what is wrong with a URL, without showing it.
func CheckWebhookURL(address string, allowInsecure bool) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return errors.New("the webhook URL is no URL with a host")
	}
	if u.User != nil {
		return errors.New("the webhook URL has a user name; incoming webhooks have none")
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if ip := net.ParseIP(u.Hostname()); allowInsecure || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return nil
		}
		return errors.New("the webhook URL is http: everybody in between could read it and post; use https, or allow_insecure")
	default:
		return errors.New("the webhook URL is not https")
	}
}

// withoutURL takes the URL out of net/http's errors.
func withoutURL(err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err
	}
	return err
}

func noAnswer(err error, connected bool) answer {
	a := answer{verdict: unavailable, code: "connect", word: "none", err: err}
	if connected {
		a.verdict, a.code = uncertain, "connection"
	}
	netErr, isNet := errors.AsType[net.Error](err)
	if errors.Is(err, context.DeadlineExceeded) || isNet && netErr.Timeout() {
		a.code = "timeout"
	}
	return a
}

// classify is the table of answers. Codes that say nothing about this message
// never lead to a dead letter.
func classify(status int, retryAfter, body string, now time.Time) answer {
	a := answer{code: strconv.Itoa(status), word: wordOf(body)}
	switch {
	case status >= 200 && status < 300:
		return a
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity:
		a.verdict = rejected
	case status == http.StatusTooManyRequests:
		a.verdict, a.retryAfter = throttled, parseRetryAfter(retryAfter, now)
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout, status == http.StatusRequestTimeout:
		a.verdict = uncertain // of something in between, which need not know
	case status >= 500:
		a.verdict = unavailable
	default:
		a.verdict = refused
	}
	a.err = fmt.Errorf("slack answered %d %s", status, a.word)
	return a
}

func wordOf(body string) string {
	body = strings.TrimSpace(body)
	switch {
	case body == "":
		return "none"
	case slices.Contains(slackWords, body):
		return body
	default:
		return "other"
	}
}

// parseRetryAfter reads seconds or a date.
func parseRetryAfter(value string, now time.Time) time.Duration {
	wait := defaultRetryAfter
	if seconds, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		wait = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
