//go:build linux

package endurance

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// chaosVariable asks for the sizes of a long run.
const chaosVariable = "CDC_CHAOS"

// insertRowsSQL inserts the rows $2 ... $3 of a Census in this order; $1 is the
// topic.
const insertRowsSQL = `
	INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload)
	SELECT gen_random_uuid(), $1, 'k' || n % 1000, 'endurance.row.v1', jsonb_build_object('n', n, 'filler', repeat('x', 100))
	FROM generate_series($2::int, $3::int) n`

// size chooses by how much time there is: that of `make test`, that of a run
// against a real broker, or that of a long run.
func size(t *testing.T, short, real, long int) int {
	t.Helper()
	switch {
	case os.Getenv(chaosVariable) == "1":
		return long
	case cdctest.SharedKafka(t).Real():
		return real
	default:
		return short
	}
}

// ownKafka is a cluster that the test may stop, of the kind of the shared one.
func ownKafka(t *testing.T) *cdctest.Kafka {
	t.Helper()
	if cdctest.SharedKafka(t).Real() {
		return cdctest.StartApacheKafka(t)
	}
	return cdctest.StartKafka(t)
}

// await polls until done returns true.
func await(t *testing.T, what string, patience time.Duration, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); {
		if time.Since(began) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
		cdctest.Pause(t, 2*time.Millisecond)
	}
}

// reader feeds a Census from a topic, read_committed, while everything happens.
type reader struct {
	mu      sync.Mutex // guards the fields below
	census  *Census
	ids     map[int64]int16 // the largest epoch of each producer id
	next    map[int32]int64 // offset after the last one read
	changed chan struct{}   // closed and replaced after every fetch
}

// readTopic reads until the test ends.
func readTopic(t *testing.T, kafka *cdctest.Kafka, topic string, census *Census) *reader {
	t.Helper()
	r := &reader{census: census, ids: map[int64]int16{}, next: map[int32]int64{}, changed: make(chan struct{})}
	client := kafka.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			r.mu.Lock()
			fetches.EachRecord(r.take)
			close(r.changed)
			r.changed = make(chan struct{})
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		reading.Wait()
	})
	return r
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.census.Count()
}

// wait waits until n rows were seen, as long as new ones come within the
// patience.
func (r *reader) wait(t *testing.T, n int, patience time.Duration) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for last := -1; ; {
		r.mu.Lock()
		count, changed := r.census.Count(), r.changed
		r.mu.Unlock()
		if count >= n {
			return
		}
		if count > last {
			last = count
			timer.Reset(patience)
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Fatalf("%d rows were seen and no other for %s, want %d", count, patience, n)
		}
	}
}

func (r *reader) take(record *kgo.Record) {
	r.next[record.Partition] = record.Offset + 1
	if record.Attrs.IsControl() {
		return
	}
	r.census.Take(record)
	r.ids[record.ProducerID] = max(r.ids[record.ProducerID], record.ProducerEpoch)
}

// finish judges the topic once the relay has ended: everything up to its ends
// was read, and nothing is undecided.
func (r *reader) finish(t *testing.T, kafka *cdctest.Kafka, topic string) {
	t.Helper()
	kafka.AwaitDecided(t, topic)
	ends, err := kafka.Admin(t).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "read up to the ends of the topic", time.Minute, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		reached := true
		ends.Each(func(end kadm.ListedOffset) { reached = reached && r.next[end.Partition] >= end.Offset })
		return reached
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.census.Err(); err != nil {
		t.Fatal(err)
	}
}

// producers are the producer ids that wrote, with their largest epochs.
func (r *reader) producers() map[int64]int16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.ids)
}

// peakRSS is the largest resident set that a running process had.
func peakRSS(t *testing.T, pid int) int64 {
	t.Helper()
	rss, err := readPeakRSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	return rss
}

func readPeakRSS(pid int) (int64, error) {
	text, err := processStatus(pid, "VmHWM:")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	return kib << 10, err
}

// processStatus reads a line of /proc/<pid>/status. (proc_pid_status(5).)
func processStatus(pid int, name string) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("process %d has no %s", pid, name)
}

func mib(bytes int64) string { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }

// quantile is the smallest duration that at least the share q does not exceed.
func quantile(durations []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}
