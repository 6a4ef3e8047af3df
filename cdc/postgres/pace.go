package postgres

import (
	"net"
	"time"
)

const (
	// quietAfter is how long a read waits for data at the end of a burst.
	quietAfter = time.Millisecond
	// burstReads is how many reads a burst has before there are pauses: a
	// transaction that comes alone takes fewer, and is not held up.
	burstReads = 8
	// worthBytes is the least that a pause has to bring. A stream that is slower
	// is read as it comes.
	worthBytes = 4 << 10
)

// pace decides how long a reader pauses before its next read.
//
// pgoutput is sent one message at a time. A reader that sits in read is woken for
// each, which costs it and the walsender more than all else; so in the middle of
// traffic it pauses between reads. On loopback TCP the pauses have a second
// purpose: with the small window there (smallWindow) they make the sender's
// kernel merge messages, as long as the window is full when it is read. A sender
// that finds it open sends every message as a segment of its own, is slower by
// half for that, and so never fills it again; longer pauses lead out of it,
// whatever the congestion control.
type pace struct {
	least, most time.Duration // of a pause
	enough      int           // bytes: a read of more found the window full

	stride time.Duration // the next pause
	burst  int           // reads since the last quiet time
	waited time.Duration // by reads since data last came
	filled bool          // the last read filled the buffer: more is waiting
}

// paceOf returns the pace for a peer.
func paceOf(peer net.Addr) pace {
	tcp, ok := peer.(*net.TCPAddr)
	switch {
	case !ok: // a Unix socket holds few small messages: the walsender would wait for us
		return steadyPace(300 * time.Microsecond)
	case tcp.IP.IsLoopback():
		p := steadyPace(150 * time.Microsecond)
		p.most, p.enough = 4*time.Millisecond, windowBytes*15/16
		return p
	default:
		return steadyPace(time.Millisecond)
	}
}

func steadyPace(stride time.Duration) pace {
	return pace{least: stride, most: stride, stride: stride}
}

// pause returns how long to wait before the next read.
func (p *pace) pause() time.Duration {
	if p.filled || p.burst < burstReads {
		return 0
	}
	return p.stride
}

// took learns from a read: how many bytes it brought, whether they filled the
// buffer, whether there was a pause before it, and how long it waited for them.
func (p *pace) took(bytes int, filled, paused bool, waited time.Duration) {
	p.filled = filled
	p.waited += waited
	if bytes == 0 {
		return
	}
	switch {
	case p.waited >= quietAfter || paused && bytes < worthBytes:
		p.burst, p.stride = 0, p.least
	case paused && bytes >= p.enough:
		p.burst, p.stride = p.burst+1, max(p.least, p.stride-p.stride/64)
	case paused:
		p.burst, p.stride = p.burst+1, min(p.most, p.stride+p.stride/2)
	default:
		p.burst++
	}
	p.waited = 0
}
