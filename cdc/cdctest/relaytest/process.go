package relaytest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say what to run.
type Options struct {
	Binary     string
	ConfigPath string
	Command    string   // default run
	Args       []string // after the command and --config
	Env        []string // beside the inherited environment, which loses CDC_RELAY_ variables
	Admin      string   // host:port of the admin server in the configuration
}

// Process is one life of cdc-relay.
type Process struct {
	Admin

	cmd    *exec.Cmd
	stdout output
	stderr output
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

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Start starts a process that ends with the test at the latest. Its messages
// are shown when the test failed.
func Start(t testing.TB, options Options) *Process {
	t.Helper()
	p, err := start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.show(t)
	})
	return p
}

func start(options Options) (*Process, error) {
	command := options.Command
	if command == "" {
		command = "run"
	}
	args := append([]string{command, "--config", options.ConfigPath}, options.Args...)
	p := &Process{Admin: Admin{Addr: options.Admin}, cmd: exec.Command(options.Binary, args...), ended: make(chan struct{})}
	p.cmd.Env = append(cleanEnvironment(), options.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = endWithParent()
	started := make(chan error)
	go func() {
		// The kernel ends the process with the thread that started it, so that it
		// cannot outlive a test binary that is killed; the thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the exit code is read from the process state
		}
		close(p.ended)
	}()
	return p, <-started
}

// show logs the end of what the process said, if the test failed.
func (p *Process) show(t testing.TB) {
	const most = 6000
	if !t.Failed() {
		return
	}
	text := p.stderr.String()
	t.Logf("%s (pid %d, exit code %d) ends:\n%s", p.cmd.Args[1], p.PID(), p.cmd.ProcessState.ExitCode(), text[max(0, len(text)-most):])
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout is what the process printed so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr is what the process said so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends a signal; an ended process takes none.
func (p *Process) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Kill ends the process by SIGKILL and returns when it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// ExitCode is the exit code of an ended process, -1 when a signal ended it.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

var errStillRunning = errors.New("the process still runs")

// Wait returns the exit code when the process has ended, or an error when ctx
// ends before.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.ended:
		return p.ExitCode(), nil
	case <-ctx.Done():
		return 0, errors.Join(errStillRunning, ctx.Err())
	}
}

// Terminate sends SIGTERM and returns the exit code; a process that is still
// there after a minute fails the test.
func (p *Process) Terminate(t testing.TB) int {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	return code
}

// cleanEnvironment is the environment without what would configure the relay.
func cleanEnvironment() []string {
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "CDC_RELAY_") {
			env = append(env, variable)
		}
	}
	return env
}

// KilledBy says whether the signal ended the process.
func (p *Process) KilledBy(sig syscall.Signal) bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}
