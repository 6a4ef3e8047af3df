package cdc

import "time"

// clockOffset estimates server clock minus ours. A message that lay in a
// buffer makes the offset look too small, so the largest counts most.
type clockOffset struct {
	offset time.Duration
	known  bool
	seen   time.Time
}

// follow keeps the estimate true when this host's clock is set: wall clock and
// monotonic clock then went different ways since the last look.
func (c *clockOffset) follow(now time.Time) {
	if !c.seen.IsZero() {
		c.passed(now.Round(0).Sub(c.seen.Round(0)), now.Sub(c.seen))
	}
	c.seen = now
}

// passed takes the time since the last look by either clock.
func (c *clockOffset) passed(wall, monotonic time.Duration) { c.offset -= wall - monotonic }

func (c *clockOffset) note(server, now time.Time) {
	if server.IsZero() {
		return
	}
	sample := server.Sub(now)
	if !c.known || sample > c.offset {
		c.offset, c.known = sample, true
		return
	}
	c.offset += (sample - c.offset) / 64
}

// server is what the server's clock shows at our now. What goes into Kafka
// carries this time: a host whose clock is an hour ahead of the brokers would
// else have everything refused (message.timestamp.after.max.ms).
func (c *clockOffset) server(now time.Time) time.Time { return now.Add(c.offset).Round(0).UTC() }
