package cdctest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below the ranges that kernels use for outgoing
// connections. A client that dials a stopped server in such a range may be given
// the server's own port, and then the server cannot start again.
const (
	firstPort = 15000
	portCount = 17000
)

// freePorts returns n different TCP ports of the loopback address that nobody
// uses now. Another process may take one before the caller does.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range 200 + n {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(portCount)
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		defer listener.Close() // held until all are found, so that they differ
		ports = append(ports, port)
	}
	return nil, errors.New("find free ports: too many are taken")
}

// freePort is freePorts for one.
func freePort() (int, error) {
	ports, err := freePorts(1)
	if err != nil {
		return 0, err
	}
	return ports[0], nil
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
