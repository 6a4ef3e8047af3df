package chaosproxy

import (
	"sync"
	"time"
)

// Link is what a network does to everything. The zero Link is a good one.
type Link struct {
	// StopToServer and StopToClient keep what goes in that direction, the end of a
	// connection included; it arrives when the link is good again, as it does
	// after a partition. Both make a black hole. New connections are accepted, and
	// then nothing comes through them.
	StopToServer bool
	StopToClient bool
	// BytesPerSecond is the speed of each connection and direction; 0 is no bound.
	BytesPerSecond int
	// Latency is added to each message.
	Latency time.Duration
}

func (l Link) stops(direction Direction) bool {
	return direction == ToServer && l.StopToServer || direction == ToClient && l.StopToClient
}

// linkState is the link now, and tells of its changes.
type linkState struct {
	mu      sync.Mutex // guards the fields below
	link    Link
	changed chan struct{} // closed and replaced at every change
}

func newLinkState() *linkState { return &linkState{changed: make(chan struct{})} }

func (s *linkState) set(link Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = link
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *linkState) get() (Link, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link, s.changed
}

// await returns the link once it lets the direction pass; false when ended was
// closed before.
func (s *linkState) await(direction Direction, ended <-chan struct{}) (Link, bool) {
	for {
		link, changed := s.get()
		if !link.stops(direction) {
			return link, true
		}
		select {
		case <-changed:
		case <-ended:
			return link, false
		}
	}
}
