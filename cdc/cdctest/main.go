package cdctest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main is what every TestMain calls: os.Exit(cdctest.Main(m)). It does the work
// of a re-executed role, or else runs the tests, stops the shared servers, and
// fails when goroutines are left over.
func Main(m *testing.M) int {
	if code, ran := RunRole(); ran {
		return code
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "cdctest: stop the shared servers:", err)
		code = max(code, 1)
	}
	if code != 0 {
		return code // a failed test may leave anything behind
	}
	if err := findLeaks(); err != nil {
		fmt.Fprintln(os.Stderr, "cdctest:", err)
		return 1
	}
	return 0
}

// leavingTakes bounds how long a goroutine that is on its way out may take.
const leavingTakes = 30 * time.Second

// findLeaks is goleak.Find, which by itself is patient for less than half a
// second.
func findLeaks() error {
	for ends := time.Now().Add(leavingTakes); ; {
		if err := goleak.Find(); err == nil || time.Now().After(ends) {
			return err
		}
	}
}

// sharedServers are the servers that all tests of one binary use. They are the
// package's only state: a test binary has no other place that lives as long.
type sharedServers struct {
	mu       sync.Mutex // guards the fields below; held while a server starts
	postgres *PostgresServer
	kafka    *KafkaServer
}

var shared sharedServers

// stop removes what was started.
func (s *sharedServers) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.postgres != nil {
		errs = append(errs, s.postgres.Remove())
	}
	if s.kafka != nil {
		errs = append(errs, s.kafka.Remove())
	}
	s.postgres, s.kafka = nil, nil
	return errors.Join(errs...)
}
