package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

const (
	readFetchBytes     = 16 << 20
	readPartitionBytes = 2 << 20
	// readIdle is how long a partition that is not read to its end may stay silent.
	readIdle = 30 * time.Second
)

// Reader reads topics for audits and backfills: committed records only, from a
// time on, to the ends at the time of the call. It implements audit.Records,
// fences nobody, joins no group and belongs to one goroutine.
type Reader struct {
	// Compacted reads compacted topics too, of which only the newest records are
	// left; else they are refused.
	Compacted bool

	sink *Sink
	pins map[cdc.Topic]int32 // nil: not read yet
}

var _ audit.Records = (*Reader)(nil)

// NewReader returns a reader of the sink's cluster.
func NewReader(s *Sink) *Reader { return &Reader{sink: s} }

// Partitions implements audit.Records: the pinned count, or today's of a topic
// that the relay has not used yet.
func (r *Reader) Partitions(ctx context.Context, topic cdc.Topic) (n int32, err error) {
	s := r.sink
	err = s.withClient(ctx, func(cl *kgo.Client) error {
		if r.pins == nil {
			if err := r.readPins(ctx, cl); err != nil {
				return s.explain("read the topic pins", err)
			}
		}
		state, err := s.lookUp(ctx, cl, topic)
		if err != nil || !state.exists {
			return err
		}
		n = state.partitions
		if pinned, ok := r.pins[topic]; ok {
			n = pinned
		}
		return nil
	})
	return n, err
}

// readPins reads the newest pins without fencing; no position topic has none.
func (r *Reader) readPins(ctx context.Context, cl *kgo.Client) error {
	s := r.sink
	r.pins = map[cdc.Topic]int32{}
	position, err := s.lookUp(ctx, cl, cdc.Topic(s.cfg.PositionTopic))
	if err != nil || !position.exists {
		return err
	}
	log := s.positionLog(cl)
	at, err := log.settledBounds(ctx)
	if err != nil {
		return err
	}
	found, err := log.newest(ctx, at.start, at.stable, true)
	if err != nil {
		return err
	}
	pins, err := s.decodePins(found.pins)
	for _, pin := range pins {
		r.pins[pin.Topic] = pin.Partitions
	}
	return err
}

// partitionRead is how far one partition was read.
type partitionRead struct {
	audit.Extent
	logStart int64
	next     int64
	first    time.Time // timestamp of the first record that was read
}

func (p *partitionRead) done() bool { return p.next >= p.End }

type partitionOf struct {
	topic     string
	partition int32
}

// Read implements audit.Records.
func (r *Reader) Read(ctx context.Context, topics []cdc.Topic, since time.Time, each func(*audit.Record) error) (extents []audit.Extent, err error) {
	s := r.sink
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = string(topic)
	}
	err = s.withClient(ctx, func(cl *kgo.Client) error {
		if !r.Compacted {
			if err := s.refuseCompacted(ctx, cl, names); err != nil {
				return err
			}
		}
		reads, err := readBounds(ctx, cl, names, since)
		if err != nil {
			return s.explain("find the ends of the topics "+strings.Join(names, ", "), err)
		}
		if err := s.consume(ctx, reads, each); err != nil {
			return err
		}
		now := time.Now()
		for _, read := range reads {
			if read.logStart > 0 && read.Start == read.logStart {
				read.TruncatedBefore = now
				if !read.first.IsZero() {
					read.TruncatedBefore = read.first
				}
			}
			extents = append(extents, read.Extent)
		}
		return nil
	})
	return extents, err
}

// refuseCompacted refuses topics whose records disappear behind newer ones.
func (s *Sink) refuseCompacted(ctx context.Context, cl *kgo.Client, names []string) error {
	_, states, err := describeTopics(ctx, cl, names...)
	if err != nil {
		return s.explain("look up the topics "+strings.Join(names, ", "), err)
	}
	for _, name := range names {
		if slices.Contains(states[name].cleanupPolicy(), "compact") {
			return &cdc.Problem{
				What: fmt.Sprintf("topic %s is compacted", name),
				Why:  "a record that is not there may have been removed behind a newer one of its key",
				Fix:  "audit a range of rows that route elsewhere, or compare by own queries",
			}
		}
	}
	return nil
}

// readBounds finds where to begin and waits until everything below the high
// watermarks of now is decided.
func readBounds(ctx context.Context, cl *kgo.Client, names []string, since time.Time) (map[partitionOf]*partitionRead, error) {
	admin := kadm.NewClient(cl)
	ends, err := admin.ListEndOffsets(ctx, names...)
	if err = firstError(ends, err); err != nil {
		return nil, err
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err = firstError(starts, err); err != nil {
		return nil, err
	}
	from := starts
	if !since.IsZero() {
		from, err = admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), names...)
		if err = firstError(from, err); err != nil {
			return nil, err
		}
	}
	reads := map[partitionOf]*partitionRead{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		first, _ := from.Lookup(end.Topic, end.Partition)
		begin := max(first.Offset, start.Offset)
		reads[partitionOf{end.Topic, end.Partition}] = &partitionRead{
			Extent:   audit.Extent{Topic: cdc.Topic(end.Topic), Partition: end.Partition, Start: begin, End: end.Offset},
			logStart: start.Offset, next: begin,
		}
	})
	return reads, awaitStable(ctx, admin, names, reads)
}

func firstError(listed kadm.ListedOffsets, err error) error {
	if err != nil {
		return err
	}
	return listed.Error()
}

// awaitStable waits until no transaction that had begun below the ends is open;
// the coordinator ends each after its timeout.
func awaitStable(ctx context.Context, admin *kadm.Client, names []string, reads map[partitionOf]*partitionRead) error {
	for {
		stable, err := admin.ListCommittedOffsets(ctx, names...)
		if err = firstError(stable, err); err != nil {
			return err
		}
		open := ""
		for at, read := range reads {
			if offset, _ := stable.Lookup(at.topic, at.partition); offset.Offset < read.End {
				open = fmt.Sprintf("%s/%d is decided to offset %d of %d only", at.topic, at.partition, offset.Offset, read.End)
			}
		}
		if open == "" {
			return nil
		}
		if err := pause(ctx, retryPause); err != nil {
			return fmt.Errorf("wait for open transactions: %s: %w", open, err)
		}
	}
}

// consume hands over the records of all partitions up to their ends. Control
// records are asked for, because the last thing below an end often is one, and
// the read has to prove that it came so far.
func (s *Sink) consume(ctx context.Context, reads map[partitionOf]*partitionRead, each func(*audit.Record) error) error {
	from := map[string]map[int32]kgo.Offset{}
	left := 0
	for at, read := range reads {
		if read.done() {
			continue
		}
		left++
		if from[at.topic] == nil {
			from[at.topic] = map[int32]kgo.Offset{}
		}
		from[at.topic][at.partition] = kgo.NewOffset().At(read.Start)
	}
	if left == 0 {
		return nil
	}
	cl, err := s.newClient(kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(readFetchBytes), kgo.FetchMaxPartitionBytes(readPartitionBytes), kgo.MaxConcurrentFetches(1), kgo.FetchMaxWait(fetchWait))
	if err != nil {
		return err
	}
	defer cl.Close()
	for left > 0 {
		idle, cancel := context.WithTimeout(ctx, readIdle)
		fetches := cl.PollFetches(idle)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("read topics: %w", context.Cause(ctx))
		}
		for _, failed := range fetches.Errors() {
			return s.explain(fmt.Sprintf("read topics (%s)", unread(reads)), failed.Err)
		}
		done, paused, err := take(fetches, reads, each)
		if err != nil {
			return err
		}
		left -= done
		cl.PauseFetchPartitions(paused) // a busy topic would go on for ever
	}
	return nil
}

// take hands over what was fetched and returns how many partitions ended.
func take(fetches kgo.Fetches, reads map[partitionOf]*partitionRead, each func(*audit.Record) error) (done int, ended map[string][]int32, failed error) {
	ended = map[string][]int32{}
	var record audit.Record
	fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
		read := reads[partitionOf{fetched.Topic, fetched.Partition}]
		if read == nil || read.done() || failed != nil {
			return
		}
		for _, r := range fetched.Records {
			if r.Offset >= read.End {
				read.next = read.End
				break
			}
			read.next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if read.first.IsZero() {
				read.first = r.Timestamp
			}
			fill(&record, r)
			if failed = each(&record); failed != nil {
				return
			}
		}
		if read.done() {
			done++
			ended[fetched.Topic] = append(ended[fetched.Topic], fetched.Partition)
		}
	})
	return done, ended, failed
}

// unread names what is still to be read, for errors.
func unread(reads map[partitionOf]*partitionRead) string {
	var left []string
	for at, read := range reads {
		if !read.done() {
			left = append(left, fmt.Sprintf("%s/%d at offset %d of %d", at.topic, at.partition, read.next, read.End))
		}
	}
	slices.Sort(left)
	if len(left) > 3 {
		left = append(left[:3], fmt.Sprintf("and %d more", len(left)-3))
	}
	return strings.Join(left, ", ")
}

// fill reuses the record's headers.
func fill(into *audit.Record, r *kgo.Record) {
	into.Topic, into.Partition, into.Offset = cdc.Topic(r.Topic), r.Partition, r.Offset
	into.Timestamp, into.Key, into.Value = r.Timestamp, r.Key, r.Value
	into.Headers = into.Headers[:0]
	for i := range r.Headers {
		into.Headers = append(into.Headers, cdc.Header{Key: r.Headers[i].Key, Value: r.Headers[i].Value})
	}
}
