package postgres

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// badLink is a connection whose bytes come in small pieces, with timeouts in
// between, or not at all.
type badLink struct {
	net.Conn
	piece int // at most so many bytes per read; every third read times out; 0: all is well
	reads int
	count atomic.Int64 // of reads
	hole  atomic.Bool  // nothing comes through any more, in either direction
}

func (l *badLink) Read(p []byte) (int, error) {
	l.count.Add(1)
	for {
		if l.piece > 0 && !l.hole.Load() {
			l.reads++
			if l.reads%3 == 0 {
				return 0, os.ErrDeadlineExceeded
			}
			p = p[:min(len(p), l.piece)]
		}
		n, err := l.Conn.Read(p)
		if err != nil || !l.hole.Load() {
			return n, err
		}
	}
}

func (l *badLink) Write(p []byte) (int, error) {
	if l.hole.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// over makes the fixture's next stream run over the link.
func (f *fixture) over(link *badLink) {
	f.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || link.Conn != nil {
			return conn, err
		}
		link.Conn = conn
		return link, nil
	}
}

func TestMessagesSurviveTimeoutsInTheirMiddle(t *testing.T) {
	messagesInPieces(t, ready(t, cdctest.SharedPostgres(t)))
}

func messagesInPieces(t *testing.T, f *fixture) {
	t.Helper()
	link := &badLink{}
	f.over(link)
	s := f.attach(t)
	link.piece = 61
	f.exec(t, `INSERT INTO outbox (payload) SELECT repeat(md5(i::text), 3) FROM generate_series(1, 50) AS i`)
	f.exec(t, `INSERT INTO outbox (payload) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i`)
	rows, bytes, returns := 0, 0, 0
	for rows < 51 {
		m, err := s.Receive(time.Now().Add(time.Millisecond))
		switch {
		case err != nil:
			t.Fatal(err)
		case m == nil:
			returns++
			if err := s.Status(0, false); err != nil { // the heartbeat goes out between the pieces
				t.Fatal(err)
			}
		case m.Kind == cdc.MessageInsert:
			rows++
			bytes += m.Row.Bytes()
		}
	}
	if want := 50*(96+36+7+1+1) + 32000 + 36 + 7 + 1 + 1; bytes != want {
		t.Errorf("got %d bytes of values, want %d", bytes, want)
	}
	if returns == 0 {
		t.Error("no Receive came back in between")
	}
}

func TestAHugeMessageInPiecesDoesNotOutstayTheDeadline(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	link := &badLink{}
	f.over(link)
	s := f.attach(t)
	link.piece = 1
	f.exec(t, `INSERT INTO outbox (payload) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 20000) AS i`)
	var most int64 // reads of a Receive: a busy machine makes each longer, not their number larger
	for done := false; !done; {
		before := link.count.Load()
		m, err := s.Receive(time.Now().Add(2 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, link.count.Load()-before)
		done = m != nil && m.Kind == cdc.MessageInsert
		if !done && link.reads > 1000 {
			link.piece = 0 // seen enough of the pieces
		}
	}
	if most > 20_000 { // of 640,000 pieces
		t.Errorf("a Receive of 2 ms made %d reads", most)
	}
}

func TestASilentLinkIsFoundDead(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	link := &badLink{}
	f.over(link)
	s := f.attach(t)
	status := func() {
		t.Helper()
		if err := s.Status(0, false); err != nil {
			t.Fatal(err)
		}
	}
	// A quiet server is not a dead one: the status asks, the keepalive answers. Each
	// time it is as if half of the time had passed; a busy server has the other half.
	s.silence = patience
	for range 3 {
		last := &s.conn.reader.lastRead
		*last, s.asked = last.Add(-s.silence/2), s.asked.Add(-s.silence/2)
		status()
		if !s.asked.After(*last) {
			t.Error("a quiet server was not asked to reply")
		}
		for answered := false; !answered; status() {
			m, err := s.Receive(time.Now().Add(50 * time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			answered = m != nil && m.Kind == cdc.MessageKeepalive
		}
	}
	s.silence = 600 * time.Millisecond
	link.hole.Store(true)
	for begun := time.Now(); ; status() {
		if _, err := s.Receive(time.Now().Add(50 * time.Millisecond)); err != nil {
			wantProblem(t, err, cdc.Retry, "", "nothing came")
			return
		}
		if time.Since(begun) > patience {
			t.Fatal("nobody noticed")
		}
	}
}

func TestStatusesKeepTheStreamWhileNobodyReads(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	f.hurried(t)
	const rows = 2000
	f.exec(t, `INSERT INTO outbox (payload) SELECT repeat('x', 10000) FROM generate_series(1, $1)`, rows)
	s := f.attach(t)
	if got, want := s.StatusInterval(), impatience/4; got != want {
		t.Fatalf("status interval %s, want %s", got, want)
	}
	tick := time.NewTicker(s.StatusInterval())
	defer tick.Stop()
	for range 6 { // one and a half times what the server waits
		<-tick.C
		if err := s.Status(0, false); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for committed := false; !committed; {
		select {
		case <-tick.C: // reading may take long as well
			if err := s.Status(0, false); err != nil {
				t.Fatal(err)
			}
		default:
		}
		switch next(t, s).Kind {
		case cdc.MessageInsert:
			got++
		case cdc.MessageCommit:
			committed = got > 0
		}
	}
	if got != rows {
		t.Errorf("%d rows, want %d", got, rows)
	}
}

func TestStatusInterval(t *testing.T) {
	for _, test := range []struct{ timeout, interval, silence time.Duration }{
		{0, 5 * time.Second, 90 * time.Second},
		{time.Minute, 5 * time.Second, 90 * time.Second},
		{10 * time.Second, 2500 * time.Millisecond, 15 * time.Second},
		{time.Millisecond, leastStatusInterval, 15 * time.Second},
	} {
		if got := statusInterval(test.timeout); got != test.interval {
			t.Errorf("interval at %s is %s, want %s", test.timeout, got, test.interval)
		}
		if got := longestSilence(test.timeout); got != test.silence {
			t.Errorf("silence at %s is %s, want %s", test.timeout, got, test.silence)
		}
	}
}

func TestAClosedConnectionAndATerminatedWalsenderAreRetried(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	t.Run("pg_terminate_backend", func(t *testing.T) {
		s := f.attach(t)
		f.exec(t, `SELECT pg_terminate_backend($1)`, int32(s.pid))
		p := failure(t, s)
		if p.Treatment != cdc.Retry || !strings.Contains(p.Why, "57P01") {
			t.Errorf("got %v", p)
		}
	})
	t.Run("the link is cut", func(t *testing.T) {
		link := &badLink{}
		f.over(link)
		f.free(t)
		s := f.attach(t)
		link.Conn.Close()
		if p := failure(t, s); p.Treatment != cdc.Retry {
			t.Errorf("got %v", p)
		}
	})
}
