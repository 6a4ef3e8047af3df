package ledger_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// TestLostEndTxnAnswer loses answers to EndTxn after the broker got the request:
// single ones, and all of them for a while. Whether such a transaction is in
// Kafka is then only to be read from the position topic.
func TestLostEndTxnAnswer(t *testing.T) {
	t.Parallel()
	e := environment(t, relaytest.Build(t), "")
	l := e.Watch(t, ledger.Config{RowsPerSecond: 1000, MayCutRows: 10, Seed: cdctest.Seed(t)})
	thief := &answerThief{key: int16(kmsg.EndTxn)}
	failures, stop := runInProcess(t, e, thief)
	l.WaitSeen(t, 500, time.Minute)
	for range 5 {
		stolen := thief.stolen.Load()
		thief.next.Store(1)
		for began := time.Now(); thief.stolen.Load() == stolen; cdctest.Pause(t, 10*time.Millisecond) {
			if time.Since(began) > time.Minute {
				t.Fatal("no answer was lost")
			}
		}
		l.WaitSeen(t, l.Observer().Count()+200, time.Minute)
	}
	// Longer than a transaction may take: the client gives up, and the committed
	// transaction is found by the next start.
	failed := failures.Load()
	thief.next.Store(1 << 30)
	for began := time.Now(); failures.Load() == failed; cdctest.Pause(t, 10*time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the relay never gave up")
		}
	}
	thief.next.Store(0)
	l.WaitSeen(t, l.Observer().Count()+500, time.Minute)
	l.Stop(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d answers to EndTxn were lost", thief.stolen.Load())
	l.RequireExact(t, 2000)
}

// runInProcess runs the relay of e in this process, with its connections to
// Kafka in the hands of the thief, until stop is called. It counts its failures.
func runInProcess(t *testing.T, e *relaytest.Environment, thief *answerThief) (failures *failureCounter, stop func() error) {
	t.Helper()
	router, err := routing.New(routing.Config{
		Source: "/" + e.Relay, Topic: "{aggregatetype}", AllowedTopics: []string{e.Topic}, ReservedTopics: []cdc.Topic{cdc.Topic(e.PositionTopic)},
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := postgres.New(postgres.Config{
		DSN:  func() (string, error) { return e.Postgres.DSN(e.Database, "cdc_relay"), nil },
		Slot: e.Slot, Publication: e.Publication, Table: "public.outbox", RequiredColumns: router.RequiredColumns(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := cdc.TransactionalIDs{Prefix: "cdc-relay." + e.Relay, Ring: 1}
	sink, err := kafka.New(kafka.Config{
		Brokers: e.Kafka.Brokers(), Relay: e.Relay, PositionTopic: e.PositionTopic,
		TransactionalIDPrefix: ids.Prefix, TransactionRing: ids.Ring, Dial: thief.dial,
		TransactionTimeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	failures = new(failureCounter)
	runner, err := cdc.New(cdc.Config{
		Source: source, Sink: sink, Router: router, Observer: failures,
		Identity: cdc.Identity{Slot: e.Slot, TransactionalIDs: ids}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var result error
	go func() {
		result = runner.Run(ctx)
		close(ended)
	}()
	stop = func() error {
		cancel()
		<-ended
		return result
	}
	t.Cleanup(func() { _ = stop() }) // a test that failed earlier did not ask
	return failures, stop
}

// failureCounter is an Observer that counts what led to another start.
type failureCounter struct{ atomic.Int64 }

// StateChanged implements cdc.Observer.
func (*failureCounter) StateChanged(cdc.State, cdc.State, *cdc.Problem) {}

// Received implements cdc.Observer.
func (*failureCounter) Received(cdc.ReceivedCounts) {}

// Recorded implements cdc.Observer.
func (*failureCounter) Recorded(*cdc.Batch, time.Duration, time.Time) {}

// Failed implements cdc.Observer.
func (f *failureCounter) Failed(*cdc.Problem) { f.Add(1) }

// answerThief dials connections that lose answers to requests of one key: the
// request is passed on whole, its answer is awaited, and then the connection
// breaks.
type answerThief struct {
	key    int16
	next   atomic.Int64 // how many answers are still to be lost
	stolen atomic.Int64
}

func (a *answerThief) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: conn, thief: a}, nil
}

// watchedConn relies on the client writing each request with one Write.
type watchedConn struct {
	net.Conn
	thief  *answerThief
	robbed atomic.Bool
}

// Write implements net.Conn. (Kafka protocol guide: four bytes of size, then
// two of the API key.)
func (c *watchedConn) Write(request []byte) (int, error) {
	if len(request) >= 6 && int16(binary.BigEndian.Uint16(request[4:])) == c.thief.key && c.thief.next.Load() > 0 {
		c.thief.next.Add(-1)
		c.robbed.Store(true)
	}
	return c.Conn.Write(request)
}

var errAnswerLost = errors.New("the answer was lost on its way")

// Read implements net.Conn.
func (c *watchedConn) Read(answer []byte) (int, error) {
	n, err := c.Conn.Read(answer)
	if err == nil && c.robbed.Load() {
		c.thief.stolen.Add(1)
		return 0, errors.Join(errAnswerLost, io.ErrUnexpectedEOF, c.Conn.Close())
	}
	return n, err
}
