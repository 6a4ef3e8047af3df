package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	restartPause = 100 * time.Millisecond // before a process that ended is started again
	stopPatience = 8 * time.Second        // between SIGTERM and SIGKILL
)

// build makes the programs that run as processes and returns their directory.
func build(ctx context.Context, dir string) error {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w; run the demo inside its checkout", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/cdc-relay", "./cmd/payment-api", "./cmd/notifier")
	cmd.Dir = strings.TrimSpace(string(module))
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	return nil
}

// command runs a program to its end, which must be good.
func command(ctx context.Context, program string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cleanEnvironment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, output)
	}
	return nil
}

// cleanEnvironment has none of the variables that configure the programs.
func cleanEnvironment() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "CDC_RELAY_") && !strings.HasPrefix(entry, "PAYMENT_API_") && !strings.HasPrefix(entry, "NOTIFIER_") {
			env = append(env, entry)
		}
	}
	return env
}

// process is a program that is started again whenever it ends, as an init system
// does.
type process struct {
	name    string
	path    string
	args    []string
	env     []string
	logPath string

	mu    sync.Mutex // guards the fields below
	cmd   *exec.Cmd  // nil while none runs
	lives int
}

// run keeps the program running until ctx ends, and then ends it. Exit codes
// that a restart does not cure end it with an error.
func (p *process) run(ctx context.Context) error {
	// The kernel ends the program with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		code, err := p.live(ctx)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return nil
		case code == 2 || code == 5:
			return fmt.Errorf("%s ended with exit code %d; its log ends:\n%s", p.name, code, p.logTail())
		}
		sleep(ctx, restartPause)
	}
	return nil
}

// live is one life of the program.
func (p *process) live(ctx context.Context) (int, error) {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open the log of %s: %w", p.name, err)
	}
	defer log.Close() //nolint:errcheck // the program has its own descriptor
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(cleanEnvironment(), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	p.mu.Lock()
	err = cmd.Start()
	if err == nil {
		p.cmd = cmd
		p.lives++
	}
	p.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		select {
		case <-ended:
		case <-time.After(stopPatience):
			_ = cmd.Process.Kill()
		}
	})()
	err = cmd.Wait()
	close(ended)
	p.mu.Lock()
	p.cmd = nil
	p.mu.Unlock()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return 0, fmt.Errorf("wait for %s: %w", p.name, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// kill ends the life that runs now by SIGKILL, and says which process it was; 0
// when none ran.
func (p *process) kill() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process.Kill() != nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// running says whether the program runs now.
func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// logTail returns the end of the log.
func (p *process) logTail() string {
	const most = 3000
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
