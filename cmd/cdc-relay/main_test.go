package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// testMain lets testscript and relaytest share one TestMain.
type testMain struct{ m *testing.M }

func (t testMain) Run() int { return relaytest.Main(t.m) }

func TestMain(m *testing.M) {
	testscript.Main(testMain{m}, map[string]func(){"cdc-relay": main})
}

// syncBuffer is an output that may be read while a command writes it.
type syncBuffer struct {
	mu     sync.Mutex // guards the field below
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// command is one command line that runs in this process.
type command struct {
	args           []string
	stdout, stderr syncBuffer
	signals        chan os.Signal
	done           chan struct{} // closed at the end; then code is set
	code           int
}

// start runs a command line beside the test. Whatever still runs at the end of
// the test is stopped.
func start(t testing.TB, env []string, args ...string) *command {
	t.Helper()
	c := &command{args: args, signals: make(chan os.Signal, 2), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.code = Main(args, &c.stdout, &c.stderr, env, c.signals)
	}()
	t.Cleanup(func() {
		c.signals <- syscall.SIGTERM
		select {
		case <-c.done:
		case <-time.After(time.Minute):
			t.Errorf("%v does not stop; stderr:\n%s", args, c.stderr.String())
		}
	})
	return c
}

// execute runs a command line to its end.
func execute(t testing.TB, env []string, args ...string) *command {
	t.Helper()
	c := start(t, env, args...)
	c.wait(t)
	return c
}

func (c *command) wait(t testing.TB) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(time.Minute):
		t.Fatalf("%v does not end; stderr:\n%s", c.args, c.stderr.String())
	}
}

// wantCode fails the test unless the command ended with the code.
func (c *command) wantCode(t testing.TB, want int) {
	t.Helper()
	c.wait(t)
	if c.code != want {
		t.Fatalf("%v: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", c.args, c.code, want, c.stdout.String(), c.stderr.String())
	}
}

// wantIn fails the test unless every text is in the output.
func wantIn(t testing.TB, output string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(output, text) {
			t.Errorf("not in the output: %s\noutput:\n%s", text, output)
		}
	}
}

// wantSaid waits until the command has said every text: its log is written a
// little later than its state is shown.
func (c *command) wantSaid(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		eventually(t, fmt.Sprintf("%v says %q", c.args, text), func() bool { return strings.Contains(c.stderr.String(), text) })
	}
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var addressInLog = regexp.MustCompile(`"address":"([^"]+)"`)

// address waits for the admin port of a run that logs JSON.
func (c *command) address(t testing.TB) string {
	t.Helper()
	var address string
	eventually(t, "the admin port is logged by "+strings.Join(c.args, " "), func() bool {
		select {
		case <-c.done:
			t.Fatalf("%v ended with %d\nstderr:\n%s", c.args, c.code, c.stderr.String())
		default:
		}
		found := addressInLog.FindStringSubmatch(c.stderr.String())
		if found == nil {
			return false
		}
		address = found[1]
		return true
	})
	return address
}

// ended says whether the command has.
func ended(c *command) bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// writeFile puts text into a file of the test's own.
func writeFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
