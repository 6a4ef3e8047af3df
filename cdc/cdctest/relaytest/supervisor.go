package relaytest

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// restartPause is what an init system waits before it starts a process again.
const restartPause = 50 * time.Millisecond

// Supervisor keeps a program running: it starts it again whenever it ends, except
// after the exit codes that a restart cannot cure, which fail the test.
type Supervisor struct {
	Admin // of cdc-relay

	program Program
	stop    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex // guards the fields below
	current *Process
	lives   []*Process
	err     error
}

// Supervise starts the relay and keeps it running until Stop or the end of the
// test.
func Supervise(t testing.TB, options Options) *Supervisor {
	t.Helper()
	return SuperviseProgram(t, options.Program())
}

// SuperviseProgram does the same with any program.
func SuperviseProgram(t testing.TB, program Program) *Supervisor {
	t.Helper()
	s := &Supervisor{Admin: Admin{Addr: program.Admin}, program: program, stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.run()
	t.Cleanup(func() {
		s.end()
		for _, life := range s.lives[max(0, len(s.lives)-3):] {
			life.Kill()
			life.show(t)
		}
	})
	return s
}

func (s *Supervisor) run() {
	defer close(s.stopped)
	for {
		process, err := start(s.program)
		s.mu.Lock()
		if err != nil {
			s.err = err
			s.mu.Unlock()
			return
		}
		s.current = process
		s.lives = append(s.lives, process)
		s.mu.Unlock()
		select {
		case <-process.Ended():
		case <-s.stop:
			return
		}
		if code := process.ExitCode(); code == 2 || code == 5 {
			s.mu.Lock()
			s.err = fmt.Errorf("%s stopped for good with exit code %d:\n%s", s.program.Name, code, process.Output())
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

func (s *Supervisor) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	<-s.stopped
}

// Name is the program's.
func (s *Supervisor) Name() string { return s.program.Name }

// Lives is how many times the program was started.
func (s *Supervisor) Lives() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lives)
}

// Err says why the supervisor gave up; nil while it did not.
func (s *Supervisor) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Kill kills the life that runs now, if one does, and says whether that ended it.
func (s *Supervisor) Kill() bool {
	s.mu.Lock()
	process := s.current
	s.mu.Unlock()
	if process == nil {
		return false
	}
	select {
	case <-process.Ended():
		return false
	default:
		process.Kill()
		return process.KilledBy(syscall.SIGKILL)
	}
}

// Signal sends a signal to the life that runs now, if one does.
func (s *Supervisor) Signal(sig syscall.Signal) {
	s.mu.Lock()
	process := s.current
	s.mu.Unlock()
	if process != nil {
		process.Signal(sig)
	}
}

// Stop ends supervision and the program, in good order. A program that gave up
// earlier, or does not end by SIGTERM with exit code 0, fails the test. A relay
// that was killed just now is given its next life before; other programs have to
// be known to run.
func (s *Supervisor) Stop(t testing.TB) {
	t.Helper()
	s.awaitUp()
	s.end()
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	process := s.current
	select {
	case <-process.Ended(): // between two lives
		return
	default:
	}
	if code := process.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended %s with exit code %d, want 0", s.program.Name, code)
	}
}

// awaitUp waits until a life of the relay answers: SIGTERM ends one that has
// hardly begun as it ends any process, and between two lives there is none. One
// that never answers is for the caller to judge.
func (s *Supervisor) awaitUp() {
	if s.Addr == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for s.Err() == nil {
		if _, _, err := s.Get(ctx, "/livez"); err == nil {
			return
		}
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return
		}
	}
}

// WaitLife waits until life number n (from 1) runs.
func (s *Supervisor) WaitLife(ctx context.Context, n int) error {
	for s.Lives() < n {
		if err := s.Err(); err != nil {
			return err
		}
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
