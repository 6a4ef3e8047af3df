package chaosproxy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
)

// silence is how long nothing must come; patience is how long something may
// take.
const (
	silence  = 100 * time.Millisecond
	patience = time.Minute
)

// pair is both ends of one connection through a proxy.
type pair struct {
	proxy          *chaosproxy.Proxy
	client, server net.Conn
}

// connected is a pair over which a startup message went.
func connected(t *testing.T) pair {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	proxy, err := chaosproxy.NewPostgres(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := net.Dial("tcp", proxy.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	p := pair{proxy: proxy, client: client, server: server}
	startup := append(binary.BigEndian.AppendUint32(nil, 8), 0, 3, 0, 0)
	send(t, client, startup)
	wantBytes(t, server, startup)
	return p
}

// copyData is a message whose content begins with kind.
func copyData(kind byte, content string) []byte {
	head := binary.BigEndian.AppendUint32([]byte{'d'}, uint32(4+1+len(content)))
	return append(append(head, kind), content...)
}

func send(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

func wantBytes(t *testing.T, conn net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func wantSilence(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(silence))
	n, err := conn.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes, %v; want silence", n, err)
	}
}

func wantEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 1))
	if n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes, %v; want the end", n, err)
	}
}

func awaitHit(t *testing.T, r *chaosproxy.ActiveRule) {
	t.Helper()
	for ends := time.Now().Add(patience); r.Hits() == 0; {
		if time.Now().After(ends) {
			t.Fatal("the rule was never applied")
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

var (
	status    = copyData('r', "status")
	keepalive = copyData('k', "keepalive")
	wal       = copyData('w', "wal")
	query     = append([]byte{'Q', 0, 0, 0, 6}, "q\x00"...)
)

func TestWhatComesIsPassedOn(t *testing.T) {
	p := connected(t)
	for _, m := range [][]byte{status, query} {
		send(t, p.client, m)
		wantBytes(t, p.server, m)
	}
	for _, m := range [][]byte{wal, keepalive, bytes.Repeat(wal, 10_000)} {
		send(t, p.server, m)
		wantBytes(t, p.client, m)
	}
	p.server.Close()
	wantEnd(t, p.client)
}

func TestRulesHitExactlyTheirMessages(t *testing.T) {
	t.Run("a held message holds what is behind it, until the rule goes", func(t *testing.T) {
		p := connected(t)
		r := p.proxy.Add(chaosproxy.Rule{Message: chaosproxy.Status, Direction: chaosproxy.ToServer, Action: chaosproxy.Hold})
		send(t, p.client, query)
		send(t, p.client, status)
		send(t, p.client, query)
		wantBytes(t, p.server, query)
		wantSilence(t, p.server)
		send(t, p.server, keepalive) // the other direction goes on
		wantBytes(t, p.client, keepalive)
		r.Remove()
		r.Remove()
		wantBytes(t, p.server, append(append([]byte(nil), status...), query...))
	})
	t.Run("a swallowed one never comes", func(t *testing.T) {
		p := connected(t)
		p.proxy.Add(chaosproxy.Rule{Message: chaosproxy.Status, Direction: chaosproxy.ToServer, Action: chaosproxy.Swallow, Times: 2})
		for _, m := range [][]byte{status, query, status, status} {
			send(t, p.client, m)
		}
		wantBytes(t, p.server, append(append([]byte(nil), query...), status...))
	})
	t.Run("a torn one comes by half", func(t *testing.T) {
		p := connected(t)
		p.proxy.Add(chaosproxy.Rule{Message: chaosproxy.XLogData, Direction: chaosproxy.ToClient, Action: chaosproxy.Tear})
		send(t, p.server, append(append([]byte(nil), keepalive...), wal...))
		wantBytes(t, p.client, keepalive)
		got, _ := io.ReadAll(p.client) // a reset is an error, and may discard bytes
		if want := wal[:len(wal)/2]; !bytes.HasPrefix(want, got) {
			t.Errorf("got %q, want a part of %q", got, want)
		}
		wantEnd(t, p.server)
	})
	t.Run("a delayed one comes later", func(t *testing.T) {
		p := connected(t)
		p.proxy.Add(chaosproxy.Rule{Message: chaosproxy.Keepalive, Direction: chaosproxy.ToClient, Action: chaosproxy.Delay, Delay: silence})
		began := time.Now()
		send(t, p.server, keepalive)
		wantBytes(t, p.client, keepalive)
		if took := time.Since(began); took < silence {
			t.Errorf("it came after %s", took)
		}
	})
	t.Run("a cut one ends both ends", func(t *testing.T) {
		p := connected(t)
		r := p.proxy.Add(chaosproxy.Rule{Message: chaosproxy.Status, Direction: chaosproxy.ToServer, Action: chaosproxy.Cut})
		send(t, p.client, status)
		wantEnd(t, p.server)
		wantEnd(t, p.client)
		awaitHit(t, r)
	})
}

func TestBadLinks(t *testing.T) {
	t.Run("what a black hole kept comes when it is gone", func(t *testing.T) {
		p := connected(t)
		p.proxy.SetLink(chaosproxy.Link{StopToServer: true, StopToClient: true})
		send(t, p.client, status)
		send(t, p.server, wal)
		wantSilence(t, p.server)
		wantSilence(t, p.client)
		p.proxy.SetLink(chaosproxy.Link{})
		wantBytes(t, p.server, status)
		wantBytes(t, p.client, wal)
	})
	t.Run("one direction alone stops, and the end of a connection with it", func(t *testing.T) {
		p := connected(t)
		p.proxy.SetLink(chaosproxy.Link{StopToClient: true})
		send(t, p.client, status)
		wantBytes(t, p.server, status)
		p.server.Close()
		wantSilence(t, p.client)
		p.proxy.SetLink(chaosproxy.Link{})
		wantEnd(t, p.client)
	})
	t.Run("a slow link takes its time", func(t *testing.T) {
		p := connected(t)
		p.proxy.SetLink(chaosproxy.Link{BytesPerSecond: 50_000, Latency: time.Millisecond})
		message := copyData('w', string(make([]byte, 10_000)))
		began := time.Now()
		send(t, p.server, message)
		wantBytes(t, p.client, message)
		if took := time.Since(began); took < 150*time.Millisecond {
			t.Errorf("10 kB at 50 kB/s took %s", took)
		}
	})
	t.Run("a server does not hear of a client that vanished", func(t *testing.T) {
		p := connected(t)
		p.proxy.HalfOpen()
		wantEnd(t, p.client)
		wantSilence(t, p.server)
		p.proxy.Release()
		wantEnd(t, p.server)
	})
	t.Run("cut ends both ends", func(t *testing.T) {
		p := connected(t)
		p.proxy.Cut()
		wantEnd(t, p.client)
		wantEnd(t, p.server)
	})
}

func TestARealServerAnswersThroughTheProxy(t *testing.T) {
	server := cdctest.SharedPostgres(t)
	proxy, err := chaosproxy.NewPostgres(fmt.Sprintf("127.0.0.1:%d", server.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+proxy.Addresses()[0]+"/postgres?sslmode=prefer")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var text string
	if err := conn.QueryRow(t.Context(), "SELECT repeat('x', 100000)").Scan(&text); err != nil || len(text) != 100_000 {
		t.Fatalf("got %d bytes, %v", len(text), err)
	}
}
