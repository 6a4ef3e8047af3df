package cdctest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Ports are taken from below the ranges that kernels use for outgoing
// connections. A client that dials a stopped server in such a range may be given
// the server's own port, and then the server cannot start again.
//
// Tests of several packages run at once, and a server that is stopped for a
// while must find its port free. So a process takes ports from blocks of its
// own: whoever listens at a block's first port owns the others.
const (
	firstPort  = 15000
	blockSize  = 50
	blockCount = 340
)

// ports are those of this process, which gives none of them out twice.
var ports struct {
	sync.Mutex
	owned []net.Listener // one for each block, open as long as the process lives
	next  []int          // of the last block
}

// FreeAddress returns a loopback address (host:port) that nobody listens at and
// that no other test will be given, of this process or of another one.
func FreeAddress() (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	return loopback(port), nil
}

// Address is FreeAddress in the hands of a test.
func Address(t testing.TB) string {
	t.Helper()
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// freePorts returns n ports, each as FreeAddress says.
func freePorts(n int) ([]int, error) {
	found := make([]int, 0, n)
	for range n {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		found = append(found, port)
	}
	return found, nil
}

func freePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	for {
		if len(ports.next) == 0 {
			if err := ownBlock(); err != nil {
				return 0, err
			}
		}
		port := ports.next[0]
		ports.next = ports.next[1:]
		if canBind(port) { // else it is taken by a program that knows nothing of blocks
			return port, nil
		}
	}
}

// ownBlock takes a block that nobody owns. The caller holds the lock.
func ownBlock() error {
	for range 10 * blockCount {
		first := firstPort + blockSize*rand.IntN(blockCount)
		listener, err := net.Listen("tcp", loopback(first))
		if err != nil {
			continue
		}
		ports.owned = append(ports.owned, listener)
		for port := first + 1; port < first+blockSize; port++ {
			ports.next = append(ports.next, port)
		}
		return nil
	}
	return fmt.Errorf("find free ports: all blocks from %d on are taken", firstPort)
}

// canBind says whether a port is free. A process that is started meanwhile would
// have the socket too, until it has become its own program, and keep the port
// from whom it is given to: so none is.
func canBind(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	err = errors.Join(
		syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), // as every server does
		syscall.Bind(socket, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	return errors.Join(err, syscall.Close(socket)) == nil
}

// anyTaken says whether somebody listens at one of the addresses: then a server
// that could not start may do so elsewhere.
func anyTaken(addresses ...string) bool {
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return true
		}
		_ = listener.Close() // nothing was accepted
	}
	return false
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
