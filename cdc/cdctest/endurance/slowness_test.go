//go:build linux

package endurance

import (
	"crypto/sha256"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slowness measures how much longer than alone a piece of work takes on this
// machine now. Bounds of less than a second say nothing about the relay where
// dozens of processes wait for the same cores.
type slowness struct {
	mu   sync.Mutex    // guards the fields below
	wall time.Duration // of all pieces
	cpu  time.Duration
}

// stall is what a single measurement may take longer because a disk or a process
// stood still, which no average over the time shows.
const stall = 5 * time.Second

const (
	// pieceEvery is the pause between two pieces, of some milliseconds each.
	pieceEvery = 150 * time.Millisecond
	pieceBytes = 1 << 20
	// slowFrom is the share from which on a machine counts as overloaded: work
	// takes twice as long as it should.
	slowFrom = 2.0
	// rusageThread asks for the calling thread. (getrusage(2).)
	rusageThread = 1
)

// measureSlowness measures until the test ends.
func measureSlowness(t *testing.T) *slowness {
	t.Helper()
	s := &slowness{}
	quit := make(chan struct{})
	var measuring sync.WaitGroup
	measuring.Go(func() {
		runtime.LockOSThread() // whose CPU time is read
		defer runtime.UnlockOSThread()
		piece := make([]byte, pieceBytes)
		for {
			s.measure(piece)
			select {
			case <-time.After(pieceEvery):
			case <-quit:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(quit)
		measuring.Wait()
	})
	return s
}

func (s *slowness) measure(piece []byte) {
	began, used := time.Now(), threadCPU()
	for range 4 {
		sum := sha256.Sum256(piece)
		copy(piece, sum[:])
	}
	wall, cpu := time.Since(began), threadCPU()-used
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wall += wall
	s.cpu += cpu
}

// bound is the time within which something has to happen: more where the machine
// is overloaded, which is logged.
func (s *slowness) bound(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cpu <= 0 {
		return within
	}
	factor := float64(s.wall) / float64(s.cpu)
	if factor < slowFrom {
		return within
	}
	longer := time.Duration(factor * float64(within)).Round(time.Millisecond)
	t.Logf("this machine is overloaded: work takes %.1f times as long as alone; %s become %s", factor, within, longer)
	return longer
}

func threadCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
