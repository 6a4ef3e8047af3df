package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Bounds of what waits for a reader of stderr.
const (
	logQueueBytes   = 1 << 20
	logFlushTimeout = time.Second
)

// logQueue stands before stderr, so that nobody who logs ever waits for whoever
// reads it: a terminal that is stopped, or a log collector that hangs, fills the
// pipe, and a write to it would hold up the goroutine that sends the slot's
// statuses. Lines keep their order. Those that find the queue full are dropped
// and counted; the count is told in their place once there is room again.
type logQueue struct {
	to       io.Writer
	maxBytes int
	more     chan struct{} // capacity 1: something was queued, or the end was asked for
	done     chan struct{} // closed by run

	mu      sync.Mutex // guards the fields below, and is never held during a write
	lines   []queuedLine
	bytes   int                      // of lines
	dropped int                      // since the last line of the queue
	notice  func(dropped int) []byte // the line that tells of dropped ones
	closed  bool
}

// queuedLine is one write, and how many were dropped just before it.
type queuedLine struct {
	text    []byte
	dropped int
}

// newLogQueue returns a queue that is emptied by run.
func newLogQueue(to io.Writer) *logQueue {
	return &logQueue{
		to: to, maxBytes: logQueueBytes, more: make(chan struct{}, 1), done: make(chan struct{}),
		notice: func(dropped int) []byte {
			return fmt.Appendf(nil, "cdc-relay: %d lines were dropped here, nobody read stderr\n", dropped)
		},
	}
}

// Write implements io.Writer. It never blocks and never fails; after close it
// drops.
func (q *logQueue) Write(text []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return len(text), nil
	}
	if q.bytes+len(text) > q.maxBytes {
		q.dropped++
		return len(text), nil
	}
	q.lines = append(q.lines, queuedLine{text: append([]byte(nil), text...), dropped: q.dropped})
	q.bytes += len(text)
	q.dropped = 0
	q.wakeLocked()
	return len(text), nil
}

// tellDropped replaces the line that tells of dropped ones.
func (q *logQueue) tellDropped(notice func(dropped int) []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notice = notice
}

// run writes what is queued until close. A write that blocks for ever keeps it,
// and it ends with the process.
func (q *logQueue) run() {
	defer close(q.done)
	for {
		text, queued, closed := q.next()
		switch {
		case queued:
			_, _ = q.to.Write(text) // where it would be told of is what does not work
		case closed:
			return
		default:
			<-q.more
		}
	}
}

// next takes out what is to be written next.
func (q *logQueue) next() (text []byte, queued, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == 0 {
		q.lines = nil
		if q.dropped == 0 {
			return nil, false, q.closed
		}
		text = q.notice(q.dropped)
		q.dropped = 0
		return text, true, false
	}
	first := &q.lines[0]
	if first.dropped > 0 {
		text = q.notice(first.dropped)
		first.dropped = 0
		return text, true, false
	}
	text = first.text
	*first = queuedLine{}
	q.lines = q.lines[1:]
	q.bytes -= len(text)
	return text, true, false
}

// close asks run to write what is left, and waits for that no longer than the
// timeout.
func (q *logQueue) close(timeout time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.wakeLocked()
	q.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
}

// wakeLocked makes run look again.
func (q *logQueue) wakeLocked() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}
