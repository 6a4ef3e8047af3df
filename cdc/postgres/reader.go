package postgres

import (
	"bufio"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// readBufferBytes is how much one read may bring.
	readBufferBytes = 256 << 10
	// leastWait lets a read whose time is already over see what the socket holds;
	// with a deadline in the past the runtime would not even look.
	leastWait = 100 * time.Microsecond
)

// reader is the connection to the server below TLS, if there is any: whoever
// reads from it takes from a large buffer, so that neither a TLS record nor a
// message costs a read of its own. Until stream is called it passes everything
// through; from then on it reads at the pace of the traffic, with the deadline of
// the moment, and can be woken. Only wake may be called from another goroutine
// than the owner's.
type reader struct {
	net.Conn
	buffered *bufio.Reader

	streaming bool
	pace      pace
	until     time.Time
	looked    bool // the socket was read since receiveBy
	woken     atomic.Bool
	lastRead  time.Time // when data last came
}

func newReader(conn net.Conn) *reader {
	r := &reader{Conn: conn}
	r.buffered = bufio.NewReaderSize(readerFunc(r.fill), readBufferBytes)
	return r
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read implements net.Conn.
func (r *reader) Read(p []byte) (int, error) { return r.buffered.Read(p) }

// stream switches to deadlines and the pace of traffic.
func (r *reader) stream(now time.Time) {
	r.streaming, r.lastRead = true, now
	r.pace = paceOf(r.RemoteAddr())
}

// receiveBy sets the deadline of the reads for the next message.
func (r *reader) receiveBy(until time.Time) { r.until, r.looked = until, false }

func (r *reader) fill(p []byte) (int, error) {
	if !r.streaming {
		return r.Conn.Read(p)
	}
	now := time.Now()
	pause := min(r.pace.pause(), r.until.Sub(now))
	if pause > 0 {
		nap(pause) // too short to be worth a wake-up
		now = time.Now()
	}
	deadline := r.until
	if least := now.Add(leastWait); deadline.Before(least) {
		if r.looked { // a huge message in pieces does not outstay the deadline
			return 0, os.ErrDeadlineExceeded
		}
		deadline = least
	}
	r.looked = true
	// The order closes the race with wake: a wake before this deadline is set is
	// seen by the check, one after the check overwrites the deadline.
	if err := r.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if r.woken.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := r.Conn.Read(p)
	done := time.Now()
	if n > 0 {
		r.lastRead = done
	}
	r.pace.took(n, n == len(p), pause > 0, done.Sub(now))
	return n, err
}

// wake makes the read that runs now, or else the next one, return early.
func (r *reader) wake() {
	r.woken.Store(true)
	_ = r.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, where nobody reads
}

// tookWake reports and clears a wake.
func (r *reader) tookWake() bool { return r.woken.Load() && r.woken.Swap(false) }
