package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// handshakeError is a TLS handshake that failed on a connection that stood.
type handshakeError struct {
	addr string
	err  error
}

func (e *handshakeError) Error() string { return "tls handshake with " + e.addr + ": " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// credentialError is a certificate, key or password that could not be read here.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// errTLSAlert is what a plain client finds where a broker speaks TLS.
var errTLSAlert = errors.New("the broker answered with a tls alert")

// dial opens one connection to a broker, with TLS where that is configured.
func (s *Sink) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := s.cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if !s.cfg.TLS.enabled() {
		return &plainConn{Conn: conn}, nil
	}
	config, err := s.cfg.TLS.load(addr)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	secure := tls.Client(conn, config)
	ctx, cancelHandshake := context.WithTimeout(ctx, s.handshakeTimeout)
	defer cancelHandshake()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &handshakeError{addr: addr, err: err}
	}
	return secure, nil
}

// load reads the files anew, so that a rotated certificate needs no restart.
func (t TLS) load(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("broker address %q: %w", addr, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, &credentialError{fmt.Errorf("read tls ca_file: %w", err)}
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &credentialError{fmt.Errorf("tls ca_file %s holds no PEM certificate", t.CAFile)}
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, &credentialError{fmt.Errorf("load tls cert_file and key_file: %w", err)}
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// plainConn recognises a TLS alert in the first bytes that it reads. Read as a
// length they would only look like an absurdly large response.
type plainConn struct {
	net.Conn
	read bool // only touched by the client's reader
}

func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.read && n >= 2 {
		c.read = true
		if b[0] == 21 && b[1] == 3 { // alert, TLS 1.x
			return 0, errTLSAlert
		}
	}
	return n, err
}

// connectLog remembers the last failed connection attempt. When a deadline ends
// a request, the client returns just that; the operator needs the reason.
type connectLog struct {
	mu  sync.Mutex // guards err
	err error
}

var _ kgo.HookBrokerConnect = (*connectLog)(nil)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (l *connectLog) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
}

// last is nil when the last attempt succeeded.
func (l *connectLog) last() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *connectLog) reset() {
	l.mu.Lock()
	l.err = nil
	l.mu.Unlock()
}
