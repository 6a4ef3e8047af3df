package relaytest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// restartPause is what an init system waits before it starts a process again.
const restartPause = 50 * time.Millisecond

// Supervisor keeps a relay running: it starts it again whenever it ends, except
// after the exit codes that a restart cannot cure, which fail the test.
type Supervisor struct {
	Admin

	options Options
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
	s := &Supervisor{Admin: Admin{Addr: options.Admin}, options: options, stop: make(chan struct{}), stopped: make(chan struct{})}
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
		process, err := start(s.options)
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
			s.err = fmt.Errorf("the relay stopped for good with exit code %d:\n%s", code, process.Stderr())
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

// Lives is how many times the relay was started.
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

// Kill kills the life that runs now, if one does, and says whether it did.
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
		return true
	}
}

// Stop ends supervision and the relay, in good order. A relay that gave up
// earlier, or does not end by SIGTERM with exit code 0, fails the test.
func (s *Supervisor) Stop(t testing.TB) {
	t.Helper()
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
		t.Errorf("SIGTERM ended the relay with exit code %d, want 0", code)
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
