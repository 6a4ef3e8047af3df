package postgres

import (
	"net"
	"testing"
	"time"
)

// sender is a walsender on loopback TCP, microsecond by microsecond. What it
// sends while the window is full waits in its own kernel, where it is merged, and
// is cheap; with the window open every message costs it more.
type sender struct {
	window int     // bytes that fit into the receiver's window
	there  float64 // bytes in it
	queued float64 // bytes that wait for it
	merged float64 // bytes that had to wait
	sent   float64
}

const (
	mergedBytesPerMicrosecond = 66.0 // 125,000 rows/s of 530 bytes
	singleBytesPerMicrosecond = 31.0
	senderQueueBytes          = 1 << 20
)

func (s *sender) run(d time.Duration) {
	for range d.Microseconds() {
		switch room := float64(s.window) - s.there; {
		case s.queued > 0 || room <= 0:
			moved := min(s.queued, max(0, room))
			s.there, s.queued = s.there+moved, s.queued-moved
			if s.queued < senderQueueBytes {
				s.queued += mergedBytesPerMicrosecond
				s.merged += mergedBytesPerMicrosecond
				s.sent += mergedBytesPerMicrosecond
			}
		default:
			s.there += singleBytesPerMicrosecond
			s.sent += singleBytesPerMicrosecond
		}
	}
}

// read runs a reader of this pace until the end; work is what it does with each
// byte. A read of nothing waits for a message.
func (s *sender) read(p *pace, until time.Duration, work float64) (got float64) {
	for now := time.Duration(0); now < until; {
		pause := p.pause()
		s.run(pause)
		var waited time.Duration
		for s.there < 1 {
			s.run(time.Microsecond)
			waited += time.Microsecond
		}
		n := int(s.there)
		s.there -= float64(n)
		got += float64(n)
		p.took(n, false, pause > 0, waited)
		busy := 5*time.Microsecond + time.Duration(float64(n)*work)
		s.run(busy)
		now += pause + waited + busy
	}
	return got
}

var loopbackPeer = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

// A sender that begins with a segment per message is brought to merge them, by
// readers of all speeds, and kept there.
func TestPaceMakesTheSenderMerge(t *testing.T) {
	for _, window := range []int{windowBytes, windowBytes * 5 / 4} {
		for _, nanosecondsPerByte := range []float64{0, 2, 5, 8} {
			p, s := paceOf(loopbackPeer), sender{window: window}
			s.read(&p, time.Second, nanosecondsPerByte) // finds its way
			s.merged, s.sent = 0, 0
			got := s.read(&p, 2*time.Second, nanosecondsPerByte)
			if share := s.merged / s.sent; share < 0.8 {
				t.Errorf("window %d, %.0f ns per byte: %.2f of the bytes were merged", window, nanosecondsPerByte, share)
			}
			if rate := got / 2e6; rate < 0.7*mergedBytesPerMicrosecond {
				t.Errorf("window %d, %.0f ns per byte: %.0f bytes per µs", window, nanosecondsPerByte, rate)
			}
		}
	}
}

func TestPaceHoldsNothingUp(t *testing.T) {
	for name, peer := range map[string]net.Addr{
		"loopback": loopbackPeer, "network": &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, "Unix socket": &net.UnixAddr{},
	} {
		p := paceOf(peer)
		for range 1000 { // a transaction of three messages every 2 ms
			for _, waited := range []time.Duration{2 * time.Millisecond, 20 * time.Microsecond, 20 * time.Microsecond} {
				if pause := p.pause(); pause != 0 {
					t.Fatalf("%s: a pause of %s in quiet traffic", name, pause)
				}
				p.took(175, false, false, waited)
			}
		}
		pauses := 0
		for range 1000 { // messages that never stop, and yet are few
			pause := p.pause()
			if pause > 0 {
				pauses++
			}
			p.took(200, false, pause > 0, 100*time.Microsecond)
		}
		if pauses > 1000/burstReads {
			t.Errorf("%s: %d pauses in slow traffic", name, pauses)
		}
		p.took(readBufferBytes, true, false, 0)
		if pause := p.pause(); pause != 0 {
			t.Errorf("%s: a pause of %s although more is waiting", name, pause)
		}
	}
}

func TestPaceStaysWithinItsBounds(t *testing.T) {
	p := paceOf(loopbackPeer)
	for range 100 {
		p.took(worthBytes, false, p.pause() > 0, 0)
	}
	if got := p.pause(); got != p.most {
		t.Errorf("the longest pause is %s, want %s", got, p.most)
	}
	for range 1000 {
		p.took(p.enough, false, true, 0)
	}
	if got := p.pause(); got > p.least+p.least/32 {
		t.Errorf("the shortest pause is %s, want %s", got, p.least)
	}
	for range 100 {
		p.took(0, false, false, 10*time.Microsecond) // timeouts
	}
	p.took(1, false, false, 0)
	if got := p.pause(); got != 0 {
		t.Errorf("a pause of %s behind a quiet time", got)
	}
}
