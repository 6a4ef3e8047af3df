package postgres

import (
	"bufio"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// readBufferBytes is how much one read may bring.
	readBufferBytes = 256 << 10
	// stride is how long a reader in the middle of traffic waits before its next
	// read. pgoutput is sent one message at a time; a reader that sits in read is
	// woken for each, which costs it and the walsender more than all else. Where
	// nothing else is due the runtime makes a millisecond of it, which is as well.
	stride = 300 * time.Microsecond
	// quietAfter is how old the last data must be to count as the end of a burst.
	quietAfter = time.Millisecond
	// burstReads is how many reads a burst has before strides begin: a transaction
	// that comes alone takes fewer, and is not held up.
	burstReads = 8
	// leastWait lets a read whose time is already over see what the socket holds;
	// with a deadline in the past the runtime would not even look.
	leastWait = 100 * time.Microsecond
)

// reader is the source of a connection's frontend. Until stream is called it
// passes reads through; from then on it reads in large strides, with the
// deadline of the moment, and can be woken. Only wake may be called from
// another goroutine than the owner's.
type reader struct {
	buffered *bufio.Reader
	src      io.Reader
	first    byte // the first byte that the server ever sent
	begun    bool

	conn     net.Conn // nil until stream
	until    time.Time
	looked   bool // the socket was read since receiveBy
	woken    atomic.Bool
	lastRead time.Time // when data last came
	burst    int       // reads since the last quiet time
	pause    func(time.Duration)
	full     bool // the last read filled the buffer: more is waiting
}

func newReader(src io.Reader) *reader {
	r := &reader{src: src}
	r.buffered = bufio.NewReaderSize(readerFunc(r.fill), readBufferBytes)
	return r
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read implements io.Reader for the frontend.
func (r *reader) Read(p []byte) (int, error) { return r.buffered.Read(p) }

// stream switches to deadlines; conn is where they are set.
func (r *reader) stream(conn net.Conn, now time.Time) {
	r.conn, r.lastRead = conn, now
	r.pause = time.Sleep
	if conn.LocalAddr().Network() == "unix" { // it holds few small messages: the walsender would wait for us
		r.pause = nap
	}
}

// receiveBy sets the deadline of the reads for the next message.
func (r *reader) receiveBy(until time.Time) { r.until, r.looked = until, false }

func (r *reader) fill(p []byte) (int, error) {
	if r.conn == nil {
		n, err := r.src.Read(p)
		if n > 0 && !r.begun {
			r.begun, r.first = true, p[0]
		}
		return n, err
	}
	now := time.Now()
	if now.Sub(r.lastRead) >= quietAfter {
		r.burst = 0
	}
	if !r.full && r.burst >= burstReads && r.until.Sub(now) > stride {
		r.pause(stride) // too short to be worth a wake-up
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
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if r.woken.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := r.src.Read(p)
	r.full = n == len(p)
	if n > 0 {
		r.lastRead = time.Now()
		r.burst++
	}
	return n, err
}

// wake makes the read that runs now, or else the next one, return early.
func (r *reader) wake(conn net.Conn) {
	r.woken.Store(true)
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, where nobody reads
}

// tookWake reports and clears a wake.
func (r *reader) tookWake() bool { return r.woken.Load() && r.woken.Swap(false) }
