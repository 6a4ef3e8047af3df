package postgres

import (
	"net/netip"
	"syscall"
)

// windowBytes is the receive buffer on loopback TCP. There the sender is never
// held back and sends every message as its own segment; a small window makes
// the kernel merge them. Between hosts it would cap the throughput.
const windowBytes = 48 << 10

// socketControl is net.Dialer.Control.
type socketControl func(network, address string, raw syscall.RawConn) error

// smallWindow keeps the receive buffer small on loopback TCP. It has to be so
// before the connection is made: the peer cuts its segments to half of the
// largest window it was ever offered. Of a window that shrank later, a segment
// may not fit into what is left although that is more than half of it; the
// receiver then has nothing to announce, and the sender waits for its probe
// timer, for seconds if the reader had stopped for seconds. (RFC 9293, 3.8.6.)
func smallWindow(_, address string, raw syscall.RawConn) error {
	// The path of a Unix socket parses to no address, which is not loopback.
	peer, _ := netip.ParseAddrPort(address)
	if !peer.Addr().Unmap().IsLoopback() {
		return nil
	}
	return raw.Control(func(fd uintptr) { setReceiveBuffer(fd, windowBytes) })
}
