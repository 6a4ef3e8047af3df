package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// commitInterval is how often offsets are committed under load; when nothing
	// is left to do they are committed at once. What is not committed is repeated
	// after a crash, and recognised by the inbox.
	commitInterval = time.Second
	commitTimeout  = 5 * time.Second
	leaveTimeout   = 5 * time.Second
	// longestPause bounds one sleep and one poll, so that the loop visibly moves.
	longestPause = 5 * time.Second
	// The fetch limits bound what is queued here: messages leave at about one a
	// second, so there is no point in fetching much.
	fetchMaxBytes          = 4 << 20
	fetchMaxPartitionBytes = 256 << 10
)

// queue are the fetched records of one partition, in order.
type queue struct {
	records []*kgo.Record
	next    int64 // offset after the last decided record
	end     int64 // last stable offset at the last fetch
}

// consumer is one member of the group. One goroutine works; the client's calls
// the callbacks.
type consumer struct {
	cfg      KafkaConfig
	client   *kgo.Client
	delivery *delivery
	drain    time.Duration
	metrics  *metrics
	log      *slog.Logger
	moved    func(trouble error) // called at every turn of the loop

	// working is held during a step and while a partition is given away, so that
	// no partition changes hands in the middle of a post. A step is bounded, so
	// is the wait of a rebalance. Locked before committing and mu.
	working sync.Mutex
	// committing is held from the choice of offsets to their commit: an offset
	// chosen before a partition was given away must not be committed after it.
	// Locked before mu.
	committing sync.Mutex

	mu      sync.Mutex // guards the fields below; never held while waiting
	queues  map[int32]*queue
	current *item                 // the one item that was begun, of the head of its queue
	done    map[int32]*kgo.Record // last decided record per partition, not committed yet

	// Only touched by the working goroutine.
	lastCommit time.Time
	fetchErr   error
}

// newConsumer joins the group.
func newConsumer(cfg KafkaConfig, d *delivery, drain time.Duration, m *metrics, log *slog.Logger) (*consumer, error) {
	c := &consumer{
		cfg: cfg, delivery: d, drain: drain, metrics: m, log: log,
		queues: map[int32]*queue{}, done: map[int32]*kgo.Record{},
	}
	opts := []kgo.Opt{
		kgo.ConsumeTopics(cfg.Topic),
		kgo.ConsumerGroup(cfg.Group),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // the maximum age guards against old topics
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(c.assigned),
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxPartitionBytes(fetchMaxPartitionBytes),
		kgo.ProducerLinger(0), // dead letters are waited for one by one
		kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(cfg.InstanceID))
	}
	if cfg.SessionTimeout > 0 {
		opts = append(opts, kgo.SessionTimeout(cfg.SessionTimeout), kgo.HeartbeatInterval(cfg.SessionTimeout/10))
	}
	var err error
	c.client, err = cfg.newClient(log, opts...)
	if err != nil {
		return nil, err
	}
	d.bury = func(ctx context.Context, it *item) error { return cfg.bury(ctx, c.client, it) }
	return c, nil
}

// run works until ctx ends. Then it
//
//  1. ends the step that runs, and what it began: a message that is posted is
//     noted in the inbox, for as long as drain permits;
//  2. commits what was decided;
//  3. leaves the group.
func (c *consumer) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.moved(c.trouble())
		wait, idle := c.work(ctx)
		if idle || wait > 0 || time.Since(c.lastCommit) >= commitInterval {
			c.commit(ctx)
		}
		switch {
		case idle:
			c.poll(ctx)
		case wait > 0:
			c.pause(ctx, wait)
		}
	}
	c.finish(ctx)
	c.commit(ctx)
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := c.client.LeaveGroupContext(leaving); err != nil {
		c.log.Debug("the group was not left in order", keyReason, err)
	}
	c.client.CloseAllowingRebalance()
}

// trouble is why records do not move, nil while they do.
func (c *consumer) trouble() error {
	if c.delivery.trouble != nil {
		return c.delivery.trouble
	}
	if c.delivery.to.lastErr != nil {
		return c.delivery.to.lastErr
	}
	return c.fetchErr
}

func (c *consumer) pause(ctx context.Context, wait time.Duration) {
	wait = min(wait, longestPause)
	began := time.Now()
	_ = sleep(ctx, wait) // the loop looks at ctx
	c.metrics.rateWait.WithLabelValues(c.metrics.name).Add(time.Since(began).Seconds())
}

// work takes one step. Steps are not cut by ctx: a post that is on its way is
// waited for.
func (c *consumer) work(ctx context.Context) (wait time.Duration, idle bool) {
	c.working.Lock()
	defer c.working.Unlock()
	it := c.pick()
	if it == nil {
		return 0, true
	}
	wait = c.delivery.step(context.WithoutCancel(ctx), it)
	if it.phase == phaseDone {
		c.decided(it)
	}
	return wait, false
}

// pick goes on with what was begun, else begins the oldest head of a queue.
func (c *consumer) pick() *item {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		return c.current
	}
	var oldest *kgo.Record
	for _, q := range c.queues {
		if len(q.records) > 0 && (oldest == nil || q.records[0].Timestamp.Before(oldest.Timestamp)) {
			oldest = q.records[0]
		}
	}
	if oldest == nil {
		return nil
	}
	c.current = &item{record: oldest}
	return c.current
}

// decided takes the item's record out of its queue.
func (c *consumer) decided(it *item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[it.record.Partition]
	if q == nil || len(q.records) == 0 || q.records[0] != it.record {
		panic(fmt.Sprintf("offset %d was decided and is not the head of partition %d", it.record.Offset, it.record.Partition))
	}
	q.records[0] = nil
	q.records = q.records[1:]
	q.next = it.record.Offset + 1
	c.done[it.record.Partition] = it.record
	c.current = nil
}

// finish notes in the inbox what was posted already.
func (c *consumer) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.drain)
	defer cancel()
	for {
		c.mu.Lock()
		begun := c.current != nil && (c.current.phase == phaseSettle || c.current.phase == phaseBury)
		c.mu.Unlock()
		if !begun || ctx.Err() != nil {
			return
		}
		if wait, _ := c.work(ctx); sleep(ctx, wait) != nil {
			return
		}
	}
}

// poll waits for records and queues them. From the moment that the client
// returns them until they are queued no rebalance happens; afterwards the
// callbacks find them in the queues.
func (c *consumer) poll(ctx context.Context) {
	pollCtx, cancel := context.WithTimeout(ctx, longestPause)
	defer cancel()
	fetches := c.client.PollFetches(pollCtx)
	c.mu.Lock()
	fetches.EachPartition(c.enqueueLocked)
	c.mu.Unlock()
	c.client.AllowRebalance()
	err := fetchError(fetches)
	if err != nil {
		c.metrics.errors.WithLabelValues(partFetch).Inc()
		if c.fetchErr == nil || c.fetchErr.Error() != err.Error() {
			c.log.Warn("kafka gives no records", keyTopic, c.cfg.Topic, keyGroup, c.cfg.Group, keyReason, err)
		}
		_ = sleep(ctx, commitInterval) // such errors come back at once
	}
	c.fetchErr = err
}

func (c *consumer) enqueueLocked(p kgo.FetchTopicPartition) {
	if len(p.Records) == 0 {
		return
	}
	q := c.queues[p.Partition]
	if q == nil {
		q = &queue{next: p.Records[0].Offset}
		c.queues[p.Partition] = q
	}
	q.records = append(q.records, p.Records...)
	q.end = max(p.LastStableOffset, q.records[len(q.records)-1].Offset+1)
	c.metrics.consumed.WithLabelValues(p.Topic).Add(float64(len(p.Records)))
}

// fetchError returns the first error that is not the end of waiting.
func fetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) {
			return fmt.Errorf("fetch: %w", e.Err)
		}
	}
	return nil
}

// commit commits what was decided. An error is not more than a repeat: the
// offsets stay, and the next commit has them.
func (c *consumer) commit(ctx context.Context) {
	c.committing.Lock()
	defer c.committing.Unlock()
	c.lastCommit = time.Now()
	c.commitPartitions(context.WithoutCancel(ctx), nil)
}

// commitPartitions commits some partitions, nil is all. The caller holds
// committing.
func (c *consumer) commitPartitions(ctx context.Context, partitions []int32) {
	c.mu.Lock()
	var records []*kgo.Record
	for partition, record := range c.done {
		if partitions == nil || slices.Contains(partitions, partition) {
			records = append(records, record)
		}
	}
	c.mu.Unlock()
	if len(records) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if err := c.client.CommitRecords(ctx, records...); err != nil {
		c.metrics.errors.WithLabelValues(partCommit).Inc()
		c.log.Warn("offsets were not committed; they are committed later, or records are repeated", keyGroup, c.cfg.Group, keyReason, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, record := range records {
		if c.done[record.Partition] == record {
			delete(c.done, record.Partition)
		}
	}
}

func (c *consumer) assigned(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	c.metrics.rebalances.Inc()
	c.metrics.assigned.Add(float64(len(partitions[c.cfg.Topic])))
	c.log.Debug("partitions assigned", keyTopic, c.cfg.Topic, keyPartition, partitions[c.cfg.Topic])
}

// revoked gives partitions away after the step that runs, and commits how far
// they came.
func (c *consumer) revoked(ctx context.Context, _ *kgo.Client, partitions map[string][]int32) {
	c.giveAway(partitions[c.cfg.Topic], func(given []int32) {
		c.commitPartitions(context.WithoutCancel(ctx), given)
	})
}

// lost drops partitions that belong to somebody else already: a commit would be
// refused.
func (c *consumer) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	c.giveAway(partitions[c.cfg.Topic], func([]int32) {})
}

func (c *consumer) giveAway(partitions []int32, commit func([]int32)) {
	if len(partitions) == 0 {
		return
	}
	c.working.Lock()
	defer c.working.Unlock()
	c.committing.Lock()
	defer c.committing.Unlock()
	c.metrics.rebalances.Inc()
	c.metrics.assigned.Sub(float64(len(partitions)))
	c.log.Debug("partitions given away", keyTopic, c.cfg.Topic, keyPartition, partitions)
	commit(partitions)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, partition := range partitions {
		delete(c.queues, partition)
		delete(c.done, partition)
		if c.current != nil && c.current.record.Partition == partition {
			c.current = nil
		}
	}
}

// lags tells how far behind the partitions are, for the metrics.
func (c *consumer) lags() []partitionLag {
	c.mu.Lock()
	defer c.mu.Unlock()
	lags := make([]partitionLag, 0, len(c.queues))
	for partition, q := range c.queues {
		lag := partitionLag{topic: c.cfg.Topic, partition: partition, records: max(0, q.end-q.next)}
		if len(q.records) > 0 {
			lag.oldest = q.records[0].Timestamp
		}
		lags = append(lags, lag)
	}
	return lags
}

// sleep returns ctx's error if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
