package simulation

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Failure is a schedule that broke a check.
type Failure struct {
	Seed      uint64
	Violation *Violation
}

// Explore runs the schedules of count seeds from first on, on all cores, and
// stops at the first violation. The failure is nil when every check held.
func Explore(model Model, first uint64, count int) (Stats, *Failure) {
	var (
		next  atomic.Int64
		stats Stats
		mu    sync.Mutex // guards stats and failed
		found *Failure
		all   sync.WaitGroup
	)
	const chunk = 64
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			w := NewWorld(model)
			for {
				from := next.Add(chunk) - chunk
				if from >= int64(count) {
					break
				}
				for i := from; i < min(from+chunk, int64(count)); i++ {
					if v := w.Run(first + uint64(i)); v != nil {
						next.Store(int64(count))
						mu.Lock()
						if found == nil || first+uint64(i) < found.Seed {
							found = &Failure{Seed: first + uint64(i), Violation: v}
						}
						mu.Unlock()
						break
					}
				}
			}
			mu.Lock()
			stats.add(&w.stats)
			mu.Unlock()
		})
	}
	all.Wait()
	return stats, found
}

// Report shrinks a failure within the time and tells it for people: the name
// of the check on a line of its own, the seed, the tape, and what happened.
func (f *Failure) Report(model Model, limit time.Duration) string {
	tape := Record(model, f.Seed)
	shrunk := Shrink(model, tape, f.Violation.Check, limit)
	w := NewWorld(model)
	w.tracing = true
	violation := w.Replay(shrunk)
	if violation == nil {
		violation = f.Violation
	}
	return fmt.Sprintf("check: %s\n%s\nseed: %d\ntape: %s\n%d steps, shrunk from %d:\n%s",
		violation.Check, violation.What, f.Seed, shrunk, len(shrunk)-1, len(tape)-1, strings.Join(w.trace, "\n")) + "\n" + violation.Stack
}

// Record runs a seed again and returns the tape of its choices.
func Record(model Model, seed uint64) Tape {
	w := NewWorld(model)
	w.recording = true
	w.Run(seed)
	return w.recorded
}
