package chaosproxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Proxy listens once for each server and passes on what comes. Its methods may
// be called from any goroutine.
type Proxy struct {
	protocol  func(*Proxy) parser // makes what a connection is read with
	listeners []net.Listener
	addresses map[string]string // of the server -> of the proxy
	rules     rules
	link      *linkState
	running   sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	conns  map[*conn]bool
	closed bool
}

// NewPostgres returns a proxy for a server at host:port. Close it in the end.
func NewPostgres(server string) (*Proxy, error) {
	return newProxy(func(*Proxy) parser { return &postgresParser{} }, server)
}

// NewKafka returns a proxy for all brokers of a cluster, by the addresses that
// they advertise. Close it in the end.
func NewKafka(brokers ...string) (*Proxy, error) {
	return newProxy(func(p *Proxy) parser { return &kafkaParser{addresses: p.addresses} }, brokers...)
}

func newProxy(protocol func(*Proxy) parser, servers ...string) (*Proxy, error) {
	p := &Proxy{protocol: protocol, addresses: map[string]string{}, link: newLinkState(), conns: map[*conn]bool{}}
	for _, server := range servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for %s: %w", server, err), p.Close())
		}
		p.listeners = append(p.listeners, listener)
		p.addresses[server] = listener.Addr().String()
	}
	for i, server := range servers {
		p.running.Go(func() { p.accept(p.listeners[i], server) })
	}
	return p, nil
}

// Addresses returns the proxy's, in the order of the servers.
func (p *Proxy) Addresses() []string {
	addresses := make([]string, 0, len(p.listeners))
	for _, listener := range p.listeners {
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses
}

// Add puts a rule in force.
func (p *Proxy) Add(rule Rule) *ActiveRule { return p.rules.add(rule) }

// SetLink changes the link of all connections, those to come included.
func (p *Proxy) SetLink(link Link) { p.link.set(link) }

// Cut resets all connections at both ends.
func (p *Proxy) Cut() {
	for _, c := range p.all() {
		c.reset()
	}
}

// HalfOpen resets all connections at the client's end; the server is told
// nothing and hears nothing, as when the client's machine is gone. Release ends
// that.
func (p *Proxy) HalfOpen() {
	for _, c := range p.all() {
		c.abandon()
	}
}

// Release resets what HalfOpen left.
func (p *Proxy) Release() {
	for _, c := range p.all() {
		if c.abandoned.Load() {
			c.reset()
		}
	}
}

func (p *Proxy) all() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// Close ends everything and returns when nothing is left of it.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	var errs []error
	for _, listener := range p.listeners {
		errs = append(errs, listener.Close())
	}
	p.Cut()
	p.running.Wait()
	return errors.Join(errs...)
}

func (p *Proxy) accept(listener net.Listener, server string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(client, server) })
	}
}

// serve passes on one connection. A server that is not there resets the client.
func (p *Proxy) serve(client net.Conn, server string) {
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		resetOne(client)
		return
	}
	c := &conn{proxy: p, client: client, server: upstream, parser: p.protocol(p), ended: make(chan struct{})}
	if !p.enter(c) {
		c.reset()
		return
	}
	defer p.leave(c)
	var pipes sync.WaitGroup
	pipes.Go(func() { c.pipe(ToServer, bufio.NewReader(client), upstream) })
	pipes.Go(func() { c.pipe(ToClient, bufio.NewReader(upstream), client) })
	pipes.Wait()
	c.reset()
}

func (p *Proxy) enter(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[c] = true
	}
	return !p.closed
}

func (p *Proxy) leave(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
