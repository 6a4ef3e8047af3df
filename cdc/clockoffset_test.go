package cdc

import (
	"testing"
	"time"
)

func TestClockOffset(t *testing.T) {
	server := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	here := server.Add(-2 * time.Second)
	var c clockOffset
	c.note(time.Time{}, here)
	if c.known {
		t.Error("a message without a time says something")
	}
	c.note(server, here)
	c.note(server.Add(-time.Minute), here) // lay in a buffer for a minute
	if c.offset > 2*time.Second || c.offset < time.Second {
		t.Errorf("offset %s after a late message, want a little less than 2s", c.offset)
	}
	c.note(server, here)
	if got := c.server(here); !got.Equal(server) {
		t.Errorf("the server's clock shows %s, want %s", got, server)
	}
}

func TestClockOffsetFollowsTheHostsClock(t *testing.T) {
	server := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	here := server
	var c clockOffset
	c.note(server, here)
	for _, jump := range []time.Duration{3 * time.Hour, -5 * time.Hour} {
		server, here = server.Add(time.Second), here.Add(time.Second+jump)
		c.passed(time.Second+jump, time.Second)
		if got := c.server(here); !got.Equal(server) {
			t.Errorf("after a jump of %s the server's clock shows %s, want %s", jump, got, server)
		}
	}
	now := time.Now() // has both clocks; what is added to it goes to both
	c.follow(now)
	before := c.offset
	c.follow(now.Add(time.Hour))
	if c.offset != before {
		t.Errorf("without a jump the offset moved by %s", c.offset-before)
	}
}
