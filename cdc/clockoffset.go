package cdc

import "time"

// clockOffset estimates server clock minus ours. A message that lay in a
// buffer makes the offset look too small, so the largest counts most.
type clockOffset struct {
	offset time.Duration
	known  bool
}

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
