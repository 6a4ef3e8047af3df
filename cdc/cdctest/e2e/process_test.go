package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// command is what to run.
type command struct {
	name string   // for messages
	argv []string // argv[0] is a path
	env  []string // beside the inherited environment, which loses what configures our programs
}

// process is one life of a program. package relaytest has the same for
// cdc-relay alone, which takes a --config.
type process struct {
	cmd    *exec.Cmd
	output output        // what it wrote, both streams
	ended  chan struct{} // closed when the process has ended
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// tail is the end of what was written.
func (o *output) tail() string {
	const most = 4000
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.buf.String()
	return text[max(0, len(text)-most):]
}

func startProcess(c command) (*process, error) {
	p := &process{cmd: exec.Command(c.argv[0], c.argv[1:]...), ended: make(chan struct{})}
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.ContainsFunc([]string{"CDC_RELAY_", "PAYMENT_API_", "NOTIFIER_"}, func(prefix string) bool { return strings.HasPrefix(variable, prefix) })
	})
	p.cmd.Env = append(inherited, c.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = endWithParent()
	started := make(chan error)
	go func() {
		// The kernel ends the process with the thread that started it; the thread
		// has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the exit code is read from the process state
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return p, nil
}

// exited says whether the process has ended.
func (p *process) exited() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// exitCode is the exit code of an ended process, -1 when a signal ended it.
func (p *process) exitCode() int { return p.cmd.ProcessState.ExitCode() }

// kill ends the process by SIGKILL and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-p.ended
}

// terminate asks for an orderly stop and returns the exit code.
func (p *process) terminate(patience time.Duration) (int, error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
		return p.exitCode(), nil
	case <-time.After(patience):
		return 0, errors.New("it still runs after SIGTERM and " + patience.String())
	}
}

// run runs a command to its end and returns what it wrote and its exit code.
func run(ctx context.Context, c command) (string, int, error) {
	p, err := startProcess(c)
	if err != nil {
		return "", 0, err
	}
	select {
	case <-p.ended:
		return p.output.tail(), p.exitCode(), nil
	case <-ctx.Done():
		p.kill()
		return p.output.tail(), 0, fmt.Errorf("%s: %w", c.name, ctx.Err())
	}
}

// mustRun runs a command that has to end with exit code 0.
func mustRun(t testing.TB, c command) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	text, code, err := run(ctx, c)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s", c.name, code, err, text)
	}
	return text
}

// restartPause is what an init system waits before it starts a program again.
const restartPause = 50 * time.Millisecond

// supervised keeps a program running: it starts it again whenever it ends,
// except after the exit codes that a restart cannot cure.
type supervised struct {
	command command
	stop    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex // guards the fields below
	current *process
	lives   int
	err     error // why it gave up
}

// supervise keeps the program running until stopInOrder or the end of the test.
func supervise(t testing.TB, c command) *supervised {
	t.Helper()
	s := &supervised{command: c, stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.run()
	t.Cleanup(func() {
		s.end()
		if s.current == nil {
			return
		}
		s.current.kill()
		if t.Failed() {
			t.Logf("life %d of %s (exit code %d) ends:\n%s", s.lives, c.name, s.current.exitCode(), s.current.output.tail())
		}
	})
	return s
}

func (s *supervised) run() {
	defer close(s.stopped)
	for {
		p, err := startProcess(s.command)
		s.mu.Lock()
		s.err = err
		if err == nil {
			s.current = p
			s.lives++
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-p.ended:
		case <-s.stop:
			return
		}
		if code := p.exitCode(); code == 2 || code == 5 {
			s.mu.Lock()
			s.err = fmt.Errorf("%s stopped for good with exit code %d:\n%s", s.command.name, code, p.output.tail())
			s.mu.Unlock()
			return
		}
		select {
		case <-time.After(restartPause):
		case <-s.stop:
			return
		}
	}
}

func (s *supervised) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	<-s.stopped
}

// failure says why the supervisor gave up; nil while it did not.
func (s *supervised) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// killed kills the life that runs now, if one does, and says whether it did.
func (s *supervised) killed() bool {
	s.mu.Lock()
	p := s.current
	s.mu.Unlock()
	if p == nil || p.exited() {
		return false
	}
	p.kill()
	return p.exitCode() == -1
}

// stopInOrder ends supervision and the program, which has to end with exit code
// 0 after SIGTERM.
func (s *supervised) stopInOrder(t testing.TB) {
	t.Helper()
	s.end()
	if err := s.failure(); err != nil {
		t.Fatal(err)
	}
	if s.current.exited() {
		t.Errorf("%s had ended before it was stopped, with exit code %d:\n%s", s.command.name, s.current.exitCode(), s.current.output.tail())
		return
	}
	if code, err := s.current.terminate(time.Minute); err != nil || code != 0 {
		t.Errorf("SIGTERM to %s: exit code %d, %v, want 0", filepath.Base(s.command.argv[0]), code, err)
	}
}
