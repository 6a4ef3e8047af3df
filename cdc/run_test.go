package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWorld is a server, a cluster and the facts that tie them together. It
// blocks and fails where a test says so, in the time of a synctest bubble.
type fakeWorld struct {
	script *script // facts only

	mu        sync.Mutex
	wal       []Message // what a stream sends, from the start
	published []*Batch
	statuses  []time.Time
	confirmed LSN
	streams   int // open now
	opens     int
	hang      chan struct{} // not nil: Publish waits for it or its context
	streamErr error         // the next Receive returns it once
	lost      chan struct{} // of the newest stream
}

func (w *fakeWorld) Inspect(context.Context) (SourceFacts, error) { return w.script.source, nil }
func (w *fakeWorld) Close()                                       {}
func (w *fakeWorld) Attach(context.Context) (Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams++
	w.lost = make(chan struct{})
	return &fakeStream{world: w, wake: make(chan struct{}, 1), lost: w.lost}, nil
}
func (w *fakeWorld) facts() KafkaFacts {
	kafka := w.script.kafka
	if n := len(w.published); n > 0 {
		kafka.Record = w.published[n-1].Position
	}
	return kafka
}
func (w *fakeWorld) Advise(context.Context) (KafkaFacts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts(), nil
}
func (w *fakeWorld) Open(context.Context) (Publisher, KafkaFacts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens++
	return &fakePublisher{world: w}, w.facts(), nil
}

type fakePublisher struct{ world *fakeWorld }

func (p *fakePublisher) Topic(_ context.Context, topic Topic) (TopicFacts, error) {
	return p.world.script.topics[topic], nil
}
func (p *fakePublisher) Close() {}
func (p *fakePublisher) Publish(ctx context.Context, batch *Batch) error {
	p.world.mu.Lock()
	hang := p.world.hang
	p.world.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	kept := *batch
	kept.Records = slices.Clone(batch.Records) // the batch is the relay's again
	p.world.published = append(p.world.published, &kept)
	return nil
}

type fakeStream struct {
	world *fakeWorld
	next  int
	wake  chan struct{}
	lost  chan struct{}
}

func (s *fakeStream) Receive(until time.Time) (*Message, error) {
	s.world.mu.Lock()
	if err := s.world.streamErr; err != nil {
		s.world.streamErr = nil
		s.world.mu.Unlock()
		return nil, err
	}
	if s.next < len(s.world.wal) {
		m := s.world.wal[s.next]
		s.next++
		s.world.mu.Unlock()
		return &m, nil
	}
	s.world.mu.Unlock()
	select {
	case <-time.After(min(time.Until(until), 10*time.Millisecond)):
	case <-s.wake:
	}
	return nil, nil
}
func (s *fakeStream) Status(confirmed LSN, _ bool) error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.statuses = append(s.world.statuses, time.Now())
	s.world.confirmed = max(s.world.confirmed, confirmed)
	return nil
}
func (s *fakeStream) StatusInterval() time.Duration { return 2 * time.Second }
func (s *fakeStream) Facts(context.Context) (SourceFacts, error) {
	return s.world.script.source, nil
}
func (s *fakeStream) Lost() <-chan struct{} { return s.lost }
func (s *fakeStream) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
func (s *fakeStream) Close() error {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.world.streams--
	return nil
}

func (w *fakeWorld) transaction(commit, end LSN, events ...string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wal = append(w.wal, Message{Kind: MessageBegin, CommitLSN: commit, CommitTime: now, XID: 7})
	for _, event := range events {
		w.wal = append(w.wal, Message{Kind: MessageInsert, Row: w.script.row(words{args: []string{event}})})
	}
	w.wal = append(w.wal, Message{Kind: MessageCommit, CommitLSN: commit, EndLSN: end, CommitTime: now})
}

func (w *fakeWorld) rows() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rows []string
	for _, b := range w.published {
		for i := range b.Records {
			rows = append(rows, b.Records[i].Position.String())
		}
	}
	return strings.Join(rows, " ")
}

func (w *fakeWorld) seen() (statuses int, confirmed LSN, streams, opens int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.statuses), w.confirmed, w.streams, w.opens
}

func (w *fakeWorld) setHang(hang chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hang = hang
}

// running starts a Runner on a fresh world and stops it at the end of the test.
func running(t *testing.T, change func(*fakeWorld, *Config), test func(w *fakeWorld, r *Runner, stop func() error)) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWorld{script: newScript(t)}
		w.script.kafka.Record.At = time.Now()
		cfg := Config{Source: w, Sink: w, Router: scriptRouter{}, Identity: w.script.cfg.Identity, Limits: BatchLimits{MaxRows: 4}}
		change(w, &cfg)
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		test(w, r, func() error { cancel(); return <-ended })
		cancel()
	})
}

func TestRunRelaysAndStops(t *testing.T) {
	running(t, func(*fakeWorld, *Config) {}, func(w *fakeWorld, r *Runner, stop func() error) {
		w.transaction(0x200, 0x240, "e1", "e2")
		time.Sleep(3 * time.Second)
		if got := w.rows(); got != "0/200:1 0/200:2" {
			t.Errorf("published %s", got)
		}
		status := r.Status()
		if status.State != StateStreaming || !status.Active || status.RecordedLSN != 0x240 || status.OwedRows != 0 || status.ConfirmedLSN != 0x240 {
			t.Errorf("status %+v", status)
		}
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if _, confirmed, streams, _ := w.seen(); confirmed != 0x240 || streams != 0 {
			t.Errorf("confirmed %s, %d streams left open", confirmed, streams)
		}
	})
}

// A Kafka that hangs must not silence the status, nor make memory grow: the
// reader stops at the limits and the server still hears from it.
func TestStatusIsNotStarved(t *testing.T) {
	running(t, func(_ *fakeWorld, c *Config) { c.PublishTimeout = time.Hour }, func(w *fakeWorld, r *Runner, stop func() error) {
		hang := make(chan struct{})
		w.setHang(hang)
		for i := range LSN(20) {
			w.transaction(0x200+i*0x40, 0x220+i*0x40, "a", "b")
		}
		time.Sleep(time.Minute)
		statuses, confirmed, _, _ := w.seen()
		if statuses < 30 {
			t.Errorf("%d statuses in a minute of silence, the interval is 2 s", statuses)
		}
		if status := r.Status(); status.OwedRows > 2*4+1 {
			t.Errorf("%d rows in memory, two batches of 4 are allowed", status.OwedRows)
		}
		status := r.Status()
		if lag, known := status.Lag(time.Now()); !known || lag < 59*time.Second {
			t.Errorf("lag %s, known %t, after a minute without progress", lag, known)
		}
		if confirmed > 0x200 {
			t.Errorf("confirmed %s without a record", confirmed)
		}
		w.setHang(nil)
		close(hang)
		time.Sleep(5 * time.Second)
		if got := strings.Count(w.rows(), ":"); got != 40 {
			t.Errorf("%d of 40 rows afterwards", got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A publisher that never answers is given up: all clients are closed, and the
// next start reads what Kafka knows.
func TestPublishTimeout(t *testing.T) {
	running(t, func(_ *fakeWorld, c *Config) { c.PublishTimeout = 5 * time.Second }, func(w *fakeWorld, r *Runner, stop func() error) {
		w.setHang(make(chan struct{}))
		w.transaction(0x200, 0x240, "e1")
		time.Sleep(7 * time.Second)
		w.setHang(nil)
		time.Sleep(20 * time.Second)
		if _, _, _, opens := w.seen(); w.rows() != "0/200:1" || opens < 2 {
			t.Errorf("published %q after %d opens", w.rows(), opens)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestStreamErrorIsRetried(t *testing.T) {
	running(t, func(*fakeWorld, *Config) {}, func(w *fakeWorld, r *Runner, stop func() error) {
		w.transaction(0x200, 0x240, "e1")
		time.Sleep(time.Second)
		w.mu.Lock()
		w.streamErr = errors.New("connection reset")
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
		w.transaction(0x300, 0x340, "e2")
		time.Sleep(time.Second)
		if got := w.rows(); got != "0/200:1 0/300:1" {
			t.Errorf("published %q", got)
		}
		err := stop()
		if _, _, streams, _ := w.seen(); err != nil || streams != 0 {
			t.Errorf("stop: %v, %d streams left", err, streams)
		}
	})
}

// A lost stream is closed at once, also while Kafka takes no answer: a server
// that shuts down waits for the connection, and a standby for the slot.
func TestLostStreamIsClosedAtOnce(t *testing.T) {
	t.Run("while it is read", func(t *testing.T) { lostStreamIsClosedAtOnce(t, func(*fakeWorld) {}, "0/200:1") })
	t.Run("while a row waits for room in the next batch", func(t *testing.T) {
		lostStreamIsClosedAtOnce(t, func(w *fakeWorld) { w.transaction(0x300, 0x340, "e2", "e3", "e4", "e5", "e6", "e7") },
			"0/200:1 0/300:1 0/300:2 0/300:3 0/300:4 0/300:5 0/300:6")
	})
}

func lostStreamIsClosedAtOnce(t *testing.T, before func(*fakeWorld), want string) {
	running(t, func(*fakeWorld, *Config) {}, func(w *fakeWorld, r *Runner, stop func() error) {
		hang := make(chan struct{})
		w.setHang(hang)
		w.transaction(0x200, 0x240, "e1")
		time.Sleep(time.Second)
		before(w)
		time.Sleep(time.Second)
		w.mu.Lock()
		w.streamErr = errors.New("the server is shutting down")
		close(w.lost)
		w.mu.Unlock()
		time.Sleep(time.Second)
		if _, _, streams, opens := w.seen(); streams != 0 || opens != 1 {
			t.Errorf("%d streams are open a second after the only one was lost; Kafka was opened %d times", streams, opens)
		}
		w.setHang(nil)
		close(hang)
		time.Sleep(5 * time.Second)
		if got := w.rows(); got != want {
			t.Errorf("published %q, want %q", got, want)
		}
		err := stop()
		if _, _, streams, _ := w.seen(); err != nil || streams != 0 {
			t.Errorf("stop: %v, %d streams left", err, streams)
		}
	})
}

func TestHaltEndsRun(t *testing.T) {
	running(t, func(w *fakeWorld, _ *Config) { w.script.source.SystemID = "8" }, func(w *fakeWorld, r *Runner, stop func() error) {
		time.Sleep(time.Second)
		problem := AsProblem(stop())
		if problem == nil || problem.Reason != HaltOtherDatabase {
			t.Errorf("got %v", problem)
		}
		if status := r.Status(); status.State != StateHalted || status.Cause == nil {
			t.Errorf("status %+v", status)
		}
	})
}

// With StayUp the halt stays visible until the context ends.
func TestStayUp(t *testing.T) {
	running(t, func(w *fakeWorld, c *Config) { c.StayUp, w.script.kafka.Record = true, nil }, func(w *fakeWorld, r *Runner, stop func() error) {
		time.Sleep(time.Hour)
		if status := r.Status(); status.State != StateHalted || time.Since(status.MovedAt) > 2*time.Second {
			t.Errorf("status %s, moved %s ago", status.State, time.Since(status.MovedAt))
		}
		if problem := AsProblem(stop()); problem == nil || problem.Reason != HaltPositionMissing {
			t.Errorf("got %v", problem)
		}
	})
}

func TestConfigProblemsAtOnce(t *testing.T) {
	_, err := New(Config{Limits: BatchLimits{MaxRows: -1}})
	for _, want := range []string{"Source", "Sink", "Router", "slot", "transactional ids", "limits"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in: %v", want, err)
		}
	}
}

func TestProblemText(t *testing.T) {
	p := &Problem{Reason: HaltSlotLost, What: "a", Why: "b", Err: errors.New("c"), Fix: "d"}
	if got := fmt.Sprint(p); got != "slot-lost: a (b): c; way out: d" {
		t.Error(got)
	}
}
