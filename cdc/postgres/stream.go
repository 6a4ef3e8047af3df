package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	// longestStatusInterval is the most that may pass between two statuses.
	longestStatusInterval = 5 * time.Second
	// leastStatusInterval keeps a tiny wal_sender_timeout from making a busy loop.
	leastStatusInterval = 50 * time.Millisecond
	// statusWriteTimeout bounds the writing of a status on a jammed link.
	statusWriteTimeout = 10 * time.Second
	// leastSilence is the shortest wal_sender_timeout that silence is measured by.
	leastSilence = 10 * time.Second
	// unlimitedSenderTimeout stands in for wal_sender_timeout = 0.
	unlimitedSenderTimeout = 60 * time.Second
)

// stream is the replication connection. Its owner's goroutine alone reads and
// writes it; Wake and Facts may be called from others.
type stream struct {
	cfg      *Config
	conn     *connection // only its address, texts and reader; the session is hijacked
	net      net.Conn
	frontend *pgproto3.Frontend
	pid      uint32
	id       identity
	decoder  *decoder
	message  cdc.Message
	status   [statusBytes]byte
	interval time.Duration
	silence  time.Duration // without a byte from the server the link counts as dead
	asked    time.Time     // when a reply was first requested since data last came
	ended    error         // sticky: what ended the stream

	failed atomic.Pointer[cdc.Problem] // set by the guard, which wakes and closes lost then
	lost   chan struct{}
	floor  atomic.Pointer[cdc.FloorLook] // set by the guard, taken by Receive

	ctx    context.Context // ends with the stream; bounds Facts and the guard
	cancel context.CancelFunc
	mu     sync.Mutex // guards the fields below
	closed bool
	guard  *guard
}

var _ cdc.Stream = (*stream)(nil)

// attach starts the replication on the connection and takes it over. On an
// error the connection is still the caller's.
func attach(ctx context.Context, cfg *Config, conn *connection) (*stream, error) {
	id, err := conn.identify(ctx)
	if err != nil {
		return nil, err
	}
	senderTimeout, err := conn.senderTimeout(ctx)
	if err != nil {
		return nil, err
	}
	l, err := cfg.look(ctx, conn)
	if err != nil {
		return nil, err
	}
	var tableOID uint32
	if l.Table != nil {
		tableOID = l.Table.OID
	}
	if err := cfg.startReplication(ctx, conn); err != nil {
		return nil, err
	}
	hijacked, err := conn.pg.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the replication connection: %w", err)
	}
	s := &stream{
		cfg: cfg, conn: conn, net: hijacked.Conn, frontend: hijacked.Frontend, pid: hijacked.PID, id: id,
		decoder:  newDecoder(cfg.Table, tableOID, cfg.IDColumn),
		interval: statusInterval(senderTimeout), silence: longestSilence(senderTimeout),
		lost: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	conn.reader.stream(time.Now())
	return s, nil
}

// senderTimeout returns wal_sender_timeout; 0 is no timeout.
func (c *connection) senderTimeout(ctx context.Context) (time.Duration, error) {
	text, err := c.text(ctx, "read wal_sender_timeout", "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'")
	if err != nil {
		return 0, err
	}
	millis, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	return time.Duration(millis) * time.Millisecond, nil
}

// statusInterval is min(5 s, wal_sender_timeout / 4).
func statusInterval(senderTimeout time.Duration) time.Duration {
	if senderTimeout <= 0 {
		return longestStatusInterval
	}
	return max(leastStatusInterval, min(longestStatusInterval, senderTimeout/4))
}

func longestSilence(senderTimeout time.Duration) time.Duration {
	if senderTimeout <= 0 {
		senderTimeout = unlimitedSenderTimeout
	}
	return max(senderTimeout, leastSilence) * 3 / 2
}

// startReplication begins at 0/0, that is where the slot stands: a newer LSN
// would be obeyed and rows passed over. Protocol version 1 sends committed
// transactions only, in commit order.
func (cfg *Config) startReplication(ctx context.Context, conn *connection) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	err := pglogrepl.StartReplication(ctx, conn.pg, cfg.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'",
			"publication_names " + replicationLiteral(quoteIdentifier(cfg.Publication)),
			"messages 'true'",
		},
	})
	if err != nil {
		return conn.queryError(ctx, "start replication", err)
	}
	return nil
}

// replicationLiteral quotes for the grammar of replication commands, where a
// backslash is an ordinary character. (PostgreSQL source, repl_scanner.l.)
func replicationLiteral(s string) string {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '\'')
	for i := range len(s) {
		if s[i] == '\'' {
			out = append(out, '\'')
		}
		out = append(out, s[i])
	}
	return string(append(out, '\''))
}

// StatusInterval implements cdc.Stream.
func (s *stream) StatusInterval() time.Duration { return s.interval }

// Receive implements cdc.Stream.
func (s *stream) Receive(until time.Time) (*cdc.Message, error) {
	for {
		if err := s.over(); err != nil {
			return nil, err
		}
		if s.conn.reader.tookWake() {
			return nil, s.over()
		}
		s.conn.reader.receiveBy(until)
		received, err := s.frontend.Receive()
		switch {
		case err == nil:
			has, err := s.accept(received)
			if err != nil {
				s.ended = err
				return nil, err
			}
			if has {
				return &s.message, nil
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			now := time.Now()
			if err := s.deadLink(now); err != nil {
				s.ended = err
				return nil, err
			}
			if s.conn.reader.tookWake() || !now.Before(until) {
				return nil, s.over()
			}
		default:
			s.ended = s.broken("read the replication stream", err)
			return nil, s.ended
		}
	}
}

// over returns what ended the stream, or what the guard found.
func (s *stream) over() error {
	if s.ended == nil {
		if p := s.failed.Load(); p != nil {
			s.ended = p
		}
	}
	return s.ended
}

// fail ends the stream from another goroutine.
func (s *stream) fail(p *cdc.Problem) {
	if s.failed.CompareAndSwap(nil, p) {
		close(s.lost)
	}
	s.Wake()
}

// Lost implements cdc.Stream.
func (s *stream) Lost() <-chan struct{} { return s.lost }

// Wake implements cdc.Stream.
func (s *stream) Wake() { s.conn.reader.wake() }

func (s *stream) broken(step string, err error) error {
	return &cdc.Problem{
		What: step + ": the connection to Postgres at " + s.conn.host + " broke",
		Why:  s.conn.scrub(err.Error()),
		Fix:  "nothing, if the server was restarted or failed over; else check the server's log and the network",
	}
}

// deadLink says whether the server has been silent for too long although it was
// asked to reply: nobody is there, and no RST will tell.
func (s *stream) deadLink(now time.Time) error {
	last := s.conn.reader.lastRead
	if now.Sub(last) < s.silence || !s.asked.After(last) || now.Sub(s.asked) < s.silence/3 {
		return nil
	}
	return &cdc.Problem{
		What: fmt.Sprintf("nothing came from Postgres at %s for %s", s.conn.host, now.Sub(last).Round(time.Second)),
		Why:  "the server was asked to reply and did not: the link is dead without having been closed",
		Fix:  "check the network between the relay and the server; the slot is free again when the server's wal_sender_timeout has passed",
	}
}

// Status implements cdc.Stream. All three LSNs are equal, and all-zero is a
// heartbeat: the server ignores an invalid flush position.
func (s *stream) Status(confirmed cdc.LSN, replyRequested bool) error {
	if s.ended != nil {
		return s.ended
	}
	now := time.Now()
	last := s.conn.reader.lastRead
	replyRequested = replyRequested || now.Sub(last) >= s.silence/2
	if replyRequested && !s.asked.After(last) {
		s.asked = now
	}
	b := s.status[:0]
	b = append(b, 'd')
	b = binary.BigEndian.AppendUint32(b, statusBytes-1)
	b = append(b, 'r')
	for range 3 { // write, flush, apply
		b = binary.BigEndian.AppendUint64(b, uint64(confirmed))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(toServerTime(now)))
	if replyRequested {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	if err := s.net.SetWriteDeadline(now.Add(statusWriteTimeout)); err != nil {
		s.ended = s.broken("send a status", err)
		return s.ended
	}
	if _, err := s.net.Write(b); err != nil { // half a message may be out: the stream is over
		s.ended = s.broken("send a status", err)
	}
	return s.ended
}

// Close implements cdc.Stream.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	guard := s.guard
	s.mu.Unlock()
	s.cancel()
	if s.ended == nil {
		s.finish(time.Now().Add(closeTimeout * 3 / 4))
	}
	err := s.net.Close()
	if guard != nil {
		<-guard.done
	}
	s.ended = errors.New("replication stream is closed")
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// finish ends the copy and waits for the server's end of it, so that the slot is
// free when Close returns. What the server still sends is dropped: it is not
// confirmed and comes again.
func (s *stream) finish(deadline time.Time) {
	r := s.conn.reader
	r.woken.Store(false)
	if err := s.net.SetWriteDeadline(deadline); err != nil {
		return
	}
	s.frontend.Send(&pgproto3.CopyDone{})
	if err := s.frontend.Flush(); err != nil {
		return
	}
	for time.Now().Before(deadline) {
		r.receiveBy(deadline)
		received, err := s.frontend.Receive()
		if err != nil {
			return
		}
		switch received.(type) {
		case *pgproto3.ReadyForQuery:
			s.frontend.Send(&pgproto3.Terminate{})
			_ = s.frontend.Flush() // a courtesy; the socket is closed next
			return
		case *pgproto3.ErrorResponse:
			return
		}
	}
}
