package chaosproxy

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// message is one message of a protocol.
type message struct {
	name  string
	bytes []byte
	// refusal is sent back instead of passing the message on.
	refusal []byte
}

// parser finds the messages of one connection. next is called by one goroutine
// for each direction.
type parser interface {
	next(direction Direction, from *bufio.Reader) (message, error)
	// answersInOrder says that a message that is swallowed shifts all later answers.
	answersInOrder() bool
}

// conn is one connection and its continuation to the server.
type conn struct {
	proxy  *Proxy
	client net.Conn
	server net.Conn
	parser parser

	abandoned atomic.Bool // the client's end is gone, the server's is not told
	muted     atomic.Bool // what comes is read and thrown away
	once      sync.Once
	ended     chan struct{} // closed by reset
}

// resetOne closes a connection so that the peer gets a RST, not a FIN.
func resetOne(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a connection that is gone already needs none
	}
	_ = c.Close()
}

func (c *conn) reset() {
	c.once.Do(func() {
		close(c.ended)
		resetOne(c.client)
		resetOne(c.server)
	})
}

func (c *conn) abandon() {
	c.abandoned.Store(true)
	resetOne(c.client)
}

// pipe passes on one direction until the connection ends.
func (c *conn) pipe(direction Direction, from *bufio.Reader, to net.Conn) {
	defer c.end(direction)
	for {
		m, err := c.parser.next(direction, from)
		if err != nil {
			return
		}
		if m.refusal != nil {
			if _, err := c.client.Write(m.refusal); err != nil {
				return
			}
			continue
		}
		if c.muted.Load() {
			continue
		}
		if r := c.proxy.rules.apply(direction, m.name); r != nil && !c.suffer(r, m, to) {
			continue
		}
		if !c.forward(direction, m.bytes, to) {
			return
		}
	}
}

// end passes on the end of one direction as the end of both: when the link lets
// it through, and not at all from a client that vanished.
func (c *conn) end(direction Direction) {
	if c.abandoned.Load() {
		<-c.ended
		return
	}
	c.proxy.link.await(direction, c.ended)
	c.reset()
}

// suffer applies a rule and says whether the message is passed on then.
func (c *conn) suffer(r *ActiveRule, m message, to net.Conn) bool {
	switch r.Action {
	case Hold:
		select {
		case <-r.removed:
		case <-c.ended:
		}
		return true
	case Delay:
		c.sleep(r.Delay)
		return true
	case Swallow:
		if c.parser.answersInOrder() {
			c.muted.Store(true)
		}
		return false
	case Tear:
		_, _ = to.Write(m.bytes[:len(m.bytes)/2]) // the connection ends either way
		c.reset()
		return false
	default:
		c.reset()
		return false
	}
}

// sliceInterval is how often a slow link passes on a piece.
const sliceInterval = 20 * time.Millisecond

// forward writes as fast as the link is; false when that was the end.
func (c *conn) forward(direction Direction, bytes []byte, to net.Conn) bool {
	delayed := false
	for len(bytes) > 0 {
		link, ok := c.proxy.link.await(direction, c.ended)
		if !ok {
			return false
		}
		if link.Latency > 0 && !delayed {
			delayed = true
			c.sleep(link.Latency)
			continue // the link may have stopped meanwhile
		}
		piece := len(bytes)
		if link.BytesPerSecond > 0 {
			piece = min(piece, max(1, int(float64(link.BytesPerSecond)*sliceInterval.Seconds())))
			c.sleep(sliceInterval)
		}
		if _, err := to.Write(bytes[:piece]); err != nil {
			return false
		}
		bytes = bytes[piece:]
	}
	return true
}

func (c *conn) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ended:
	}
}
