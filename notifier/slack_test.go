package notifier

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

func TestAnswers(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		status           int
		retryAfter, body string
		want             verdict
		word             string
		wait             time.Duration
	}{
		{200, "", "ok", delivered, "ok", 0},
		{204, "", "", delivered, "none", 0},
		{302, "", "", refused, "none", 0},
		{400, "", "invalid_blocks\n", rejected, "invalid_blocks", 0},
		{401, "", "", refused, "none", 0},
		{403, "", "action_prohibited", refused, "action_prohibited", 0},
		{404, "", "no_service", refused, "no_service", 0},
		{405, "", "", refused, "none", 0},
		{408, "", "", uncertain, "none", 0},
		{410, "", "channel_is_archived", refused, "channel_is_archived", 0},
		{413, "", "<html>who knows</html>", rejected, "other", 0},
		{429, "30", "rate_limited", throttled, "other", 30 * time.Second},
		{429, "", "", throttled, "none", time.Second},
		{429, "-4", "", throttled, "none", 0},
		{429, "99999999999", "", throttled, "none", time.Hour},
		{429, "Tue, 24 Nov 2026 12:00:07 GMT", "", throttled, "none", 7 * time.Second},
		{429, "soon", "", throttled, "none", time.Second},
		{500, "", "rollup_error", unavailable, "rollup_error", 0},
		{502, "", "", uncertain, "none", 0},
		{503, "", "", unavailable, "none", 0},
		{504, "", "", uncertain, "none", 0},
	} {
		a := classify(test.status, test.retryAfter, test.body, now)
		if a.verdict != test.want || a.word != test.word || a.retryAfter != test.wait || (a.err == nil) != (test.want == delivered) {
			t.Errorf("%d %q %q: got %+v", test.status, test.retryAfter, test.body, a)
		}
	}
}

func TestTheSecretURLIsNeverShown(t *testing.T) {
	const secret = "secretsecret"
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is the end of the client noticed
		<-r.Context().Done()
	}))
	defer hanging.Close()
	redirecting := httptest.NewServer(http.RedirectHandler("/"+secret, http.StatusFound))
	defer redirecting.Close()
	for name, test := range map[string]struct {
		url  string
		want verdict
		code string
	}{
		"connection refused": {"http://" + cdctest.Address(t) + "/" + secret, unavailable, "connect"},
		"no such host":       {"https://" + strings.Repeat("x", 64) + ".invalid/" + secret, unavailable, "connect"}, // a label too long to ask a server for
		"timeout":            {hanging.URL + "/" + secret, uncertain, "timeout"},
		"redirect":           {redirecting.URL + "/" + secret, refused, "302"},
		"not a URL":          {"https://hooks\x7f/" + secret, refused, "config"},
		"no host":            {"https:///" + secret, refused, "config"},
		"plain http":         {"http://example.org/" + secret, refused, "config"},
		"other scheme":       {"ftp://example.org/" + secret, refused, "config"},
		"user":               {"https://" + secret + "@example.org/", refused, "config"},
		"TLS expected":       {strings.Replace(hanging.URL, "http:", "https:", 1) + "/" + secret, unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := patience
			if test.code == "timeout" {
				timeout = 2 * time.Second // enough for the connection
			}
			s := newSlack(SlackConfig{WebhookURL: func() (string, error) { return test.url + "\n", nil }, Timeout: timeout}.withDefaults())
			defer s.close()
			a := s.post(context.Background(), SampleMessage("x"))
			if a.verdict != test.want || test.code != "" && a.code != test.code {
				t.Errorf("got verdict %d, code %s, want %d, %s (%v)", a.verdict, a.code, test.want, test.code, a.err)
			}
			if a.err == nil || strings.Contains(a.err.Error(), secret) {
				t.Errorf("got error %v, which must be there and not name the secret", a.err)
			}
		})
	}
}

func TestAnswersInTheWholePath(t *testing.T) {
	for name, test := range map[string]struct {
		answers  []fakeslack.Answer
		messages int
		noted    int
		state    string
		paused   string // seen while it lasted
	}{
		"429 waits":                      {[]fakeslack.Answer{{Status: 429, RetryAfter: "1"}}, 1, 0, "sent", pauseThrottled},
		"500 is tried again":             {[]fakeslack.Answer{{Status: 500}, {Status: 503}}, 1, 0, "sent", ""},
		"502 may have been posted":       {[]fakeslack.Answer{{Status: 502}}, 1, 1, "sent", ""},
		"a cut connection may have been": {[]fakeslack.Answer{{Lost: true}}, 2, 1, "sent", ""},
		"404 waits and loses nothing":    {[]fakeslack.Answer{{Status: 404, Body: "no_service"}, {Status: 403}, {Status: 410}}, 1, 0, "sent", ""},
		"400 is a dead letter":           {[]fakeslack.Answer{{Status: 400, Body: "invalid_blocks"}}, 0, 0, "dead", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 1)
			b.slack.Script(test.answers...)
			seen := make(chan struct{})
			if test.paused != "" {
				b.slack.Script(fakeslack.Answer{Hold: seen}) // a pause is shown until the next answer
			}
			r, next := b.record(sample(uuid.NewString(), 1)), b.record(sample(uuid.NewString(), 2))
			b.produce(r, next)
			began := time.Now()
			b.run(b.cfg)
			if test.paused != "" {
				until(t, "it is paused", func() bool { return b.metric("notifier_paused", test.paused) == 1 })
				close(seen)
			}
			until(t, "both decided", func() bool { return b.stateOf(r) == test.state && b.stateOf(next) == "sent" })
			if n, noted := b.messagesOf(r); n != test.messages || noted != test.noted {
				t.Errorf("got %d messages, %d with a note, want %d and %d", n, noted, test.messages, test.noted)
			}
			if n, noted := b.messagesOf(next); n != 1 || noted != 0 {
				t.Errorf("the next event has %d messages, %d with a note, want one without", n, noted)
			}
			if test.paused == pauseThrottled && time.Since(began) < time.Second {
				t.Error("Retry-After was not waited for")
			}
			if got := b.metric("notifier_paused"); got != 0 {
				t.Errorf("%v pauses are left", got)
			}
			if strings.Contains(b.log.String(), "secretsecret") {
				t.Error("the log names the secret URL")
			}
		})
	}
}

func TestAnUncertainPostIsNotRepeatedUnderAtMostOnce(t *testing.T) {
	b := newBed(t, 1)
	b.cfg.Repeat = RepeatAtMostOnce
	b.slack.Script(fakeslack.Answer{Lost: true}, fakeslack.Answer{Status: 429, RetryAfter: "0"})
	r, next := b.record(sample(uuid.NewString(), 1)), b.record(sample(uuid.NewString(), 2))
	b.produce(r, next)
	b.run(b.cfg)
	until(t, "both decided", func() bool { return b.stateOf(r) == "unknown" && b.stateOf(next) == "sent" })
	if n, _ := b.messagesOf(r); n != 1 {
		t.Errorf("got %d messages, want the one whose answer was lost", n)
	}
	if n, _ := b.messagesOf(next); n != 1 {
		t.Errorf("got %d messages after a 429, want 1: nothing was posted by it", n)
	}
}

// A destination that refuses keeps everything, and tells it.
func TestARefusalLosesNothing(t *testing.T) {
	b := newBed(t, 2)
	b.slack.Always(&fakeslack.Answer{Status: 404, Body: "no_service"})
	var records []*kgo.Record
	for range 10 {
		records = append(records, b.record(sample(uuid.NewString(), 1)))
	}
	b.produce(records...)
	first := b.run(b.cfg)
	until(t, "several attempts", func() bool { return b.slack.Posts() >= 3 && b.metric("notifier_paused", pauseRefused) == 1 })
	if status := first.Status(); status.State != StateWaiting || !strings.Contains(status.Trouble.Error(), "404 no_service") {
		t.Errorf("got status %+v", status)
	}
	first.stop(t)
	b.slack.Always(nil)
	b.run(b.cfg)
	until(t, "all delivered", func() bool { return b.outcome(outcomeDelivered) == 10 })
	for _, r := range records {
		if n, noted := b.messagesOf(r); n != 1 || noted != 0 {
			t.Errorf("got %d messages, %d with a note, want one without", n, noted)
		}
	}
}

func TestBackoff(t *testing.T) {
	now := time.Now()
	d := newDestination(SlackConfig{RetryMin: 100 * time.Millisecond, RetryMax: time.Second, RefusedRetry: time.Minute, Interval: 3 * time.Second})
	d.random = func() float64 { return 1 }
	var waits []time.Duration
	for range 6 {
		d.answered(answer{verdict: unavailable, err: errors.New("x")}, now)
		waits = append(waits, d.wait(now))
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if waits[i] != want*time.Millisecond {
			t.Errorf("wait %d is %s, want %dms", i, waits[i], want)
		}
	}
	for _, test := range []struct {
		verdict verdict
		want    time.Duration
		paused  string
	}{{refused, time.Minute, pauseRefused}, {delivered, 3 * time.Second, ""}, {rejected, 3 * time.Second, ""}} {
		d.answered(answer{verdict: test.verdict}, now)
		if d.wait(now) != test.want || d.paused != test.paused || d.failures != 0 {
			t.Errorf("verdict %d: wait %s, paused %q, want %s, %q", test.verdict, d.wait(now), d.paused, test.want, test.paused)
		}
	}
}

func TestTheRateIsKept(t *testing.T) {
	b := newBed(t, 2)
	b.slack.MinInterval = 20 * time.Millisecond // the fake refuses what is faster
	b.cfg.Slack.Interval = 30 * time.Millisecond
	for range 8 {
		b.produce(b.record(sample(uuid.NewString(), 1)))
	}
	b.run(b.cfg)
	until(t, "all delivered", func() bool { return b.outcome(outcomeDelivered) == 8 })
	if got := b.metric("notifier_delivery_attempts_total", "429"); got != 0 {
		t.Errorf("%v posts were too fast", got)
	}
	until(t, "the waiting is counted", func() bool {
		if b.metric("notifier_rate_limit_wait_seconds_total") > 0 {
			return true
		}
		b.produce(b.record(sample(uuid.NewString(), 1))) // the machine was too slow for a post to come too early
		return false
	})
}
