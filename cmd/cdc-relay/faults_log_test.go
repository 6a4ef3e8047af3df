package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// slowReader is a stderr that takes nothing until it is opened.
type slowReader struct {
	open    chan struct{}
	entered chan struct{} // capacity 1: a write waits
	buffer  syncBuffer
}

func (r *slowReader) Write(p []byte) (int, error) {
	select {
	case r.entered <- struct{}{}:
	default:
	}
	<-r.open
	return r.buffer.Write(p)
}

func newSlowReader() *slowReader {
	return &slowReader{open: make(chan struct{}), entered: make(chan struct{}, 1)}
}

// inTime fails the test unless what it does comes back soon.
func inTime(t *testing.T, within time.Duration, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(within):
		t.Fatalf("%s takes longer than %s", what, within)
	}
}

func TestLogQueue(t *testing.T) {
	t.Parallel()
	t.Run("keeps the order and counts what it drops, in its place", func(t *testing.T) {
		t.Parallel()
		reader := newSlowReader()
		q := newLogQueue(reader)
		q.maxBytes = 40
		go q.run()
		inTime(t, 10*time.Second, "writing", func() {
			fmt.Fprintf(q, "first 89\n")
			<-reader.entered // it is no longer in the queue
			for i := range 7 {
				fmt.Fprintf(q, "line %d 89\n", i)
			}
		})
		close(reader.open)
		eventually(t, "the queue is empty", func() bool { return strings.Contains(reader.buffer.String(), "dropped") })
		fmt.Fprintf(q, "behind\n")
		inTime(t, 10*time.Second, "closing", func() { q.close(time.Minute) })
		want := "first 89\nline 0 89\nline 1 89\nline 2 89\nline 3 89\ncdc-relay: 3 lines were dropped here, nobody read stderr\nbehind\n"
		if got := reader.buffer.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		if n, err := q.Write([]byte("too late\n")); n != 9 || err != nil || reader.buffer.String() != want {
			t.Errorf("after close: %d, %v, %s", n, err, reader.buffer.String())
		}
	})
	t.Run("tells of dropped lines before those behind them, in the format of the log", func(t *testing.T) {
		t.Parallel()
		reader := newSlowReader()
		q := newLogQueue(reader)
		q.maxBytes = 400
		go q.run()
		logger := newLogger(&LogConfig{Level: "error", Format: "json"}, q)
		inTime(t, 10*time.Second, "writing", func() {
			for i := range 5 {
				logger.Error("x", "filler", strings.Repeat("f", 100))
				if i == 0 {
					<-reader.entered // it is no longer in the queue, where two more have room
				}
			}
		})
		close(reader.open)
		eventually(t, "there is room", func() bool { return strings.Count(reader.buffer.String(), "\n") >= 2 })
		logger.Error("behind")
		q.close(time.Minute)
		lines := strings.Split(strings.TrimSpace(reader.buffer.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"behind"`) {
			t.Errorf("last line %s", last)
		}
		if notice := lines[len(lines)-2]; !strings.Contains(notice, `"level":"WARN","msg":"log lines dropped here, nobody read stderr","dropped":`) {
			t.Errorf("the line before it: %s", notice)
		}
	})
	t.Run("is not waited for longer than it is given", func(t *testing.T) {
		t.Parallel()
		reader := newSlowReader()
		q := newLogQueue(reader)
		go q.run()
		fmt.Fprintf(q, "nobody reads this in time\n")
		inTime(t, 10*time.Second, "closing", func() { q.close(50 * time.Millisecond) })
		close(reader.open)
		<-q.done
		if got := reader.buffer.String(); got != "nobody reads this in time\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("writers at once lose no line and mix none", func(t *testing.T) {
		t.Parallel()
		var out syncBuffer
		q := newLogQueue(&out)
		go q.run()
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				for i := range 200 {
					fmt.Fprintf(q, "writer %d line %d.\n", w, i)
				}
			})
		}
		writers.Wait()
		q.close(time.Minute)
		next := map[string]int{}
		lines := bufio.NewScanner(strings.NewReader(out.String()))
		for lines.Scan() {
			var writer, line int
			if _, err := fmt.Sscanf(lines.Text(), "writer %d line %d.", &writer, &line); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			if key := fmt.Sprint(writer); next[key] != line {
				t.Fatalf("%q came when line %d was due", lines.Text(), next[key])
			} else {
				next[key]++
			}
		}
		for writer, n := range next {
			if n != 200 {
				t.Errorf("writer %s: %d lines", writer, n)
			}
		}
		if len(next) != 8 {
			t.Errorf("%d writers", len(next))
		}
	})
}

// TestSignalsDoNotWaitForStderr: with a stderr that takes nothing the first
// signal still stops, and the second still ends.
func TestSignalsDoNotWaitForStderr(t *testing.T) {
	t.Parallel()
	reader := newSlowReader()
	q := newLogQueue(reader)
	go q.run()
	signals := make(chan os.Signal, 2)
	stopped := make(chan struct{})
	signals <- syscall.SIGTERM
	inTime(t, 10*time.Second, "the second signal", func() {
		code := supervise(q, signals, func(ctx context.Context) int {
			<-ctx.Done()
			close(stopped)
			signals <- syscall.SIGTERM
			<-reader.open // work that does not end
			return exitFine
		})
		if code != exitForced {
			t.Errorf("exit code %d", code)
		}
	})
	<-stopped
	close(reader.open)
	q.close(time.Minute)
	wantIn(t, reader.buffer.String(), "stopping in good order", "on the second signal")
}

// fullPipe is a pipe that takes no byte more.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	chunk := bytes.Repeat([]byte("filler\n"), 512)
	for size := len(chunk); size > 0; size /= 2 { // what is left for a small write too
		for {
			if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(chunk[:size]); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return r, w
}

// TestBlockedLog gives the relay a stderr that is a full pipe nobody reads. It
// publishes, keeps its slot for longer than the server would wait for a
// status, and stops in time. What it said comes out when somebody reads.
func TestBlockedLog(t *testing.T) {
	t.Parallel()
	const senderTimeout = 8 * time.Second // longer than the machine stands still
	e := newEnvironment(t)
	db := e.Postgres.Connect(t, e.Database)
	exec1 := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec1(fmt.Sprintf("ALTER DATABASE %s SET wal_sender_timeout = %d", e.Database, senderTimeout.Milliseconds()))
	r, w := fullPipe(t)
	cmd := exec.Command(e.Binary, "run", "--config", e.ConfigPath, "--log-level", "debug")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // the exit code is read from the process state
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	admin := relaytest.Admin{Addr: e.AdminAddr}
	admin.WaitState(t, cdc.StateStreaming, 30*time.Second)

	walsender := func() (pid int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, e.Slot).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	pid := walsender()
	for began := time.Now(); time.Since(began) < senderTimeout+time.Second; {
		exec1(`INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload) VALUES ($1, 'k', 't', '{}')`, e.Topic)
		var text string
		if err := db.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		lsn, err := cdc.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		if published, err := admin.Published(t.Context(), lsn, 30*time.Second); err != nil || !published {
			t.Fatalf("a row is not published while nobody reads the log: %v", err)
		}
	}
	if now := walsender(); pid == 0 || now != pid {
		t.Errorf("the slot belonged to walsender %d, now to %d", pid, now)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("SIGTERM does not end it")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitFine {
		t.Errorf("exit code %d", code)
	}
	_ = w.Close()
	text, err := io.ReadAll(r)
	if err != nil || len(bytes.ReplaceAll(text, []byte("filler\n"), nil)) >= len(text) {
		t.Errorf("the pipe was never full: %d bytes, %v", len(text), err)
	}
	if bytes.Contains(text, []byte("cdc-relay starts")) {
		t.Error("somebody read the log, so that nothing was shown")
	}
}

// TestLogThatIsReadLate lets the reader of stderr pause and come back: it gets
// every line of the pause. The relay runs until the reader is there, since at its
// end it waits for one no longer than a second.
func TestLogThatIsReadLate(t *testing.T) {
	t.Parallel()
	r, w := fullPipe(t)
	admin := relaytest.Admin{Addr: cdctest.Address(t)}
	config := writeFile(t, fmt.Sprintf("relay: payments\npostgres: {dsn: %q}\nkafka: {brokers: [\"127.0.0.1:1\"]}\nrouting: {allowed_topics: [x]}\nadmin: {listen: %q}\n",
		"postgres://postgres@127.0.0.1:1/x?sslmode=disable", admin.Addr))
	cmd := exec.Command(relaytest.Build(t), "run", "--config", config)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // the exit code is read from the process state
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	_ = w.Close()
	eventually(t, "a start has failed", func() bool {
		status, err := admin.Status(t.Context())
		return err == nil && status.State != cdc.StateStarting
	})
	var said syncBuffer
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(&said, r) }() // until it has ended
	eventually(t, "the lines of the pause are read", func() bool { return strings.Contains(said.String(), "cdc-relay starts") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("SIGTERM does not end it")
	}
	<-read
	if code := cmd.ProcessState.ExitCode(); code != exitFine {
		t.Errorf("exit code %d", code)
	}
	wantIn(t, strings.ReplaceAll(said.String(), "filler\n", ""), "cdc-relay starts", `"state":"retrying"`, "stopped in good order")
}
