package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// terminal prints lines, and reads single keys where there is a keyboard.
type terminal struct {
	stdin *os.File
	keys  chan byte // nil without a keyboard

	mu     sync.Mutex // guards the fields below
	out    io.Writer
	before *term.State // of the keyboard; nil while it is not raw
}

// newTerminal takes the keyboard if both ends are one. Give it back with close.
func newTerminal(stdin *os.File, stdout io.Writer) *terminal {
	t := &terminal{stdin: stdin, out: stdout}
	file, ok := stdout.(*os.File)
	if stdin == nil || !ok || !term.IsTerminal(int(stdin.Fd())) || !term.IsTerminal(int(file.Fd())) {
		return t
	}
	before, err := term.MakeRaw(int(stdin.Fd()))
	if err != nil {
		return t
	}
	t.before, t.keys = before, make(chan byte)
	go t.read()
	return t
}

// read ends with the process: nothing wakes a read of a terminal.
func (t *terminal) read() {
	var key [1]byte
	for {
		if n, err := t.stdin.Read(key[:]); err != nil || n == 0 {
			return
		}
		t.keys <- key[0]
	}
}

// Write implements io.Writer. A raw terminal does not return the carriage.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(p)
	if t.before != nil {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	_, err := io.WriteString(t.out, text)
	return len(p), err
}

// close gives the keyboard back.
func (t *terminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before != nil {
		_ = term.Restore(int(t.stdin.Fd()), t.before) // nothing else can be done
		t.before = nil
	}
}

// line is a payment that reached Slack.
func line(p path) string {
	status := p.Status
	if p.Failure != "" {
		status += " " + p.Failure
	}
	return fmt.Sprintf("%s %s %-24s %14s → commit %s → %s (%.0f ms) → Slack ✓ (%.0f ms)",
		p.AskedAt.Format("15:04:05"), p.PaymentID[max(0, len(p.PaymentID)-12):], status, p.Amount, p.CommitLSN, p.Record, p.KafkaMS, p.SlackMS)
}

// summary is the state in one line.
func summary(v view) string {
	return fmt.Sprintf("sent %d   in Kafka %d   in Slack %d   lag %.3f s   relay %s   missing %d   duplicate %d   out of order %d",
		v.Sent, v.InKafka, v.InSlack, v.LagSeconds, v.RelayState, v.Audit.Missing, v.Audit.Duplicate, v.Audit.OutOfOrder)
}
