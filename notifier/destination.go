package notifier

import (
	"math/rand/v2"
	"time"
)

// The reasons of a pause, as the metric notifier_paused shows them.
const (
	pauseRefused     = "refused"
	pauseThrottled   = "throttled"
	pauseUnavailable = "unavailable"
)

func pauseReasons() []string { return []string{pauseRefused, pauseThrottled, pauseUnavailable} }

// destination knows when the next post may be. It is one for all records: what
// Slack says about one message of a channel holds for all of them.
type destination struct {
	cfg       SlackConfig
	random    func() float64 // in [0, 1)
	notBefore time.Time
	failures  int    // in a row
	paused    string // a reason, or empty
	// lastErr is what Slack said last, nil after a delivery.
	lastErr error
}

func newDestination(cfg SlackConfig) *destination {
	return &destination{cfg: cfg, random: rand.Float64}
}

// wait is how long the next post has to wait.
func (d *destination) wait(now time.Time) time.Duration { return max(0, d.notBefore.Sub(now)) }

// answered notes an answer.
func (d *destination) answered(a answer, now time.Time) {
	d.lastErr = a.err
	switch a.verdict {
	case delivered, rejected:
		d.failures, d.paused = 0, ""
		d.notBefore = now.Add(d.cfg.Interval)
	case throttled:
		d.failures, d.paused = 0, pauseThrottled
		d.notBefore = now.Add(a.retryAfter + d.jitter(d.cfg.RetryMin))
	case refused:
		d.failures, d.paused = 0, pauseRefused
		d.notBefore = now.Add(d.cfg.RefusedRetry)
	default:
		d.paused = pauseUnavailable
		d.notBefore = now.Add(d.backoff())
		d.failures++
	}
	if a.verdict == rejected {
		d.lastErr = nil // the message's fault
	}
}

// backoff doubles with every failure; half of it is chance.
func (d *destination) backoff() time.Duration {
	full := d.cfg.RetryMax
	if d.failures < 30 {
		full = min(full, d.cfg.RetryMin<<d.failures)
	}
	return full/2 + d.jitter(full/2)
}

func (d *destination) jitter(most time.Duration) time.Duration {
	return time.Duration(d.random() * float64(most))
}
