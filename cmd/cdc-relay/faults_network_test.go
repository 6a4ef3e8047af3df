package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// nameServer answers questions for the address of any name below "test".
type nameServer struct {
	mu      sync.Mutex // guards the fields below
	address net.IP     // nil: no such name
	asked   map[string]int
}

func (s *nameServer) set(address net.IP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address, s.asked = address, map[string]int{}
}

// questions says how often the name was asked for since set.
func (s *nameServer) questions(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// dial is the network of a net.Resolver: a stream, where messages have their
// length before them. (RFC 1035, section 4.2.2.)
func (s *nameServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go s.serve(server)
	return client, nil
}

func (s *nameServer) serve(conn net.Conn) {
	defer conn.Close()
	for {
		size := make([]byte, 2)
		if _, err := io.ReadFull(conn, size); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := s.answer(query)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// answer has the header, the question, and where there is one an A record that
// points at the question's name. (RFC 1035, section 4.1.)
func (s *nameServer) answer(query []byte) []byte {
	const header, typeA = 12, 1
	end, labels := header, []string{}
	for query[end] != 0 {
		labels = append(labels, string(query[end+1:end+1+int(query[end])]))
		end += 1 + int(query[end])
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 1 + 2 + 2
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == typeA {
		s.asked[strings.Join(labels, ".")]++
	}
	reply := append([]byte(nil), query[:end]...)
	copy(reply[2:], []byte{0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}) // an authoritative answer to one question
	if s.address == nil {
		reply[3] = 3 // no such name
		return reply
	}
	if kind != typeA {
		return reply
	}
	reply[7] = 1
	reply = append(reply, 0xC0, header, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4)
	return append(reply, s.address.To4()...)
}

// TestNamesAreResolvedAnew starts where the names of both servers are unknown,
// then point elsewhere, then are right. It is not parallel: it replaces the
// process's resolver.
func TestNamesAreResolvedAnew(t *testing.T) {
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	ids := r.insert(t, 2)
	names := new(nameServer)
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: names.dial}
	defer func() { net.DefaultResolver = former }()
	names.set(nil)
	var brokers []string
	for _, broker := range r.kafka.Brokers() {
		brokers = append(brokers, strings.Replace(broker, "127.0.0.1", "kafka.test", 1))
	}
	config := r.edited(t, strings.Join(r.kafka.Brokers(), ", "), strings.Join(brokers, ", "), "@127.0.0.1:"+strconv.Itoa(r.postgres.Port()), "@postgres.test:"+strconv.Itoa(r.postgres.Port()))
	run := start(t, nil, "run", "--config", config, "--set", "postgres.allow_insecure=true")
	defer run.stop(t, exitFine) // before the resolver is put back
	run.awaitState(t, cdc.StateRetrying, cdc.StateStalled)
	run.wantSaid(t, "postgres.test", `"fix":`)

	names.set(net.IPv4(127, 9, 9, 9)) // nobody listens there
	eventually(t, "the other address is tried", func() bool { return names.questions("postgres.test") > 1 })
	names.set(net.IPv4(127, 0, 0, 1))
	run.awaitState(t, cdc.StateStreaming)
	if names.questions("kafka.test") == 0 {
		t.Error("nobody asked for the broker")
	}
	r.wantPublished(t, ids)
}

// TestSlowScraper: clients that send half a request, or ask for metrics again
// and again and never read, hold up neither the relay nor other scrapers nor
// the end.
func TestSlowScraper(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	run := start(t, nil, "run", "--config", r.config)
	run.awaitState(t, cdc.StateStreaming)
	address := run.address(t)
	for i := range 10 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096) // a hint
		}
		request := "GET /metrics HTTP/1.1\r\nHost: x\r\n"
		if i > 0 {
			request = strings.Repeat(request+"\r\n", 200)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, request); err != nil {
			t.Fatal(err)
		}
	}
	ids := r.insert(t, 3)
	r.wantPublished(t, ids)
	for range 3 { // one that waited for the others would wait for the server's write timeout, a minute
		code, body, err := adminGet(t.Context(), address, "/metrics", nil, 30*time.Second)
		if err != nil || code != http.StatusOK || !strings.Contains(string(body), "cdc_relay_state") {
			t.Fatalf("HTTP %d, %v", code, err)
		}
	}
	began := time.Now()
	run.stop(t, exitFine)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}
