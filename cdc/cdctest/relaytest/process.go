package relaytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say how to run cdc-relay.
type Options struct {
	Binary     string
	ConfigPath string
	Command    string   // default run
	Args       []string // after the command and --config
	Env        []string // as Program's
	Admin      string   // host:port of the admin server in the configuration
}

// Program is cdc-relay with its arguments.
func (o Options) Program() Program {
	command := o.Command
	if command == "" {
		command = "run"
	}
	argv := append([]string{o.Binary, command, "--config", o.ConfigPath}, o.Args...)
	return Program{Name: "cdc-relay " + command, Argv: argv, Env: o.Env, Admin: o.Admin}
}

// Process is one life of a program.
type Process struct {
	Admin // of cdc-relay

	name   string
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
	p, err := start(options.Program())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.show(t)
	})
	return p
}

func start(program Program) (*Process, error) {
	p := &Process{Admin: Admin{Addr: program.Admin}, name: program.Name, cmd: exec.Command(program.Argv[0], program.Argv[1:]...), ended: make(chan struct{})}
	p.cmd.Env = program.environment()
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
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program.Name, err)
	}
	return p, nil
}

// show logs the end of what the process said, if the test failed.
func (p *Process) show(t testing.TB) {
	const most = 6000
	if !t.Failed() {
		return
	}
	text := p.Output()
	t.Logf("%s (pid %d, exit code %d) ends:\n%s", p.name, p.PID(), p.ExitCode(), text[max(0, len(text)-most):])
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout is what the process printed so far.
func (p *Process) Stdout() string { return p.stdout.String() }

// Stderr is what the process said so far.
func (p *Process) Stderr() string { return p.stderr.String() }

// Output is what the process printed, and then what it said.
func (p *Process) Output() string { return p.Stdout() + p.Stderr() }

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

// KilledBy says whether the signal ended the process.
func (p *Process) KilledBy(sig syscall.Signal) bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}
