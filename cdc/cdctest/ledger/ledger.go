package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// retryInterval is the pause between two looks at a server that has to be polled.
const retryInterval = 50 * time.Millisecond

// Config says what to watch and which load to make. Everything up to Slot is
// required; the topics, the table and the relay's slot exist already.
type Config struct {
	Postgres      *cdctest.Postgres
	Database      string
	Kafka         *cdctest.Kafka
	Topic         string
	Partitions    int32
	PositionTopic string // empty in mode at-least-once
	Slot          string // the relay's; its acknowledgements are sampled

	Table         pgx.Identifier // default public.outbox
	AggregateType string         // default the topic, for the routing "{aggregatetype}"
	Writers       int            // default 4
	KeysPerWriter int            // default 8
	Rows          int64          // 0: until Stop
	RowsPerSecond float64        // 0: as fast as they can
	// BigTransactionRows makes rare large transactions; 0 makes none.
	BigTransactionRows int
	// Prepared makes some transactions prepared ones (two-phase commit).
	Prepared bool
	// MayCutRows is the smallest batch limit in rows that the relay may use;
	// default 10000, its own.
	MayCutRows int
	Seed       uint64
	// AtLeastOnce judges by the rules of that mode.
	AtLeastOnce bool
	// SlotFallsBack says that Postgres crashes in this run.
	SlotFallsBack bool
	// Patience is how long Stop waits without seeing a new event; default 60 s.
	Patience time.Duration
}

func (c *Config) setDefaults() {
	if len(c.Table) == 0 {
		c.Table = pgx.Identifier{"public", "outbox"}
	}
	if c.AggregateType == "" {
		c.AggregateType = c.Topic
	}
	if c.Writers == 0 {
		c.Writers = 4
	}
	if c.KeysPerWriter == 0 {
		c.KeysPerWriter = 8
	}
	if c.MayCutRows == 0 {
		c.MayCutRows = 10_000
	}
	if c.Patience == 0 {
		c.Patience = 60 * time.Second
	}
}

// Ledger is load, observation and truth of one run.
type Ledger struct {
	cfg      Config
	truth    Truth
	writers  *Writers
	observer *Observer

	stopWriting context.CancelFunc
	writing     chan error // has the writers' result once they stopped
	written     error
	stopped     bool

	mu   sync.Mutex // guards acks
	acks []AckSample
}

// Start begins to write, to read and to sample. Everything ends with the test.
func Start(t testing.TB, cfg Config) *Ledger {
	t.Helper()
	cfg.setDefaults()
	t.Logf("ledger: seed %d", cfg.Seed)
	l := &Ledger{cfg: cfg, truth: Truth{Table: cfg.Table, Slot: cfg.Slot + "_audit"}, writing: make(chan error, 1)}
	if err := l.truth.Create(t.Context(), cfg.Postgres.Connect(t, cfg.Database)); err != nil {
		t.Fatal(err)
	}
	dsn := cfg.Postgres.DSN(cfg.Database, "postgres")
	connect := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) }
	l.writers = NewWriters(WritersConfig{
		Connect: connect, Table: cfg.Table, AggregateType: cfg.AggregateType,
		Writers: cfg.Writers, KeysPerWriter: cfg.KeysPerWriter, Rows: cfg.Rows, RowsPerSecond: cfg.RowsPerSecond,
		BigTransactionRows: cfg.BigTransactionRows, Prepared: cfg.Prepared, Seed: cfg.Seed,
	})
	client := cfg.Kafka.Client(t, ReaderOptions(cfg.Topic, cfg.PositionTopic)...)
	l.observer = NewObserver(client, cfg.Topic, cfg.PositionTopic)

	watching, stopWatching := context.WithCancel(context.Background())
	writing, stopWriting := context.WithCancel(watching)
	l.stopWriting = stopWriting
	var watchers sync.WaitGroup
	watchers.Go(func() {
		if err := l.observer.Run(watching); err != nil {
			t.Errorf("observer: %v", err)
		}
	})
	watchers.Go(func() { l.sampleAcks(watching, connect, kadm.NewClient(client)) })
	watchers.Go(func() { l.writing <- l.writers.Run(writing) })
	t.Cleanup(func() {
		stopWatching()
		watchers.Wait()
	})
	return l
}

// Observer is the concurrent reader.
func (l *Ledger) Observer() *Observer { return l.observer }

// Counts are the writers'.
func (l *Ledger) Counts() *WriterCounts { return &l.writers.Counts }

// StopWriting ends the load and waits until every outcome is known.
func (l *Ledger) StopWriting(t testing.TB) {
	t.Helper()
	if l.stopped {
		return
	}
	l.stopped = true
	if l.cfg.Rows == 0 {
		l.stopWriting()
	}
	l.written = <-l.writing
	l.stopWriting()
	if l.written != nil {
		t.Fatalf("ledger: %v", l.written)
	}
	c := l.Counts()
	t.Logf("ledger: %d transactions with %d rows committed, %d of them prepared, %d rolled back, %d savepoints rolled back, %d outcomes first unknown",
		c.Transactions.Load(), c.Rows.Load(), c.Prepared.Load(), c.RolledBack.Load(), c.Savepoints.Load(), c.Unknown.Load())
}

// Stop ends the load (with Rows set: waits for its end) and waits until every
// committed event was seen, or nothing new for Config.Patience. What is missing
// then is for the Report to say.
func (l *Ledger) Stop(t testing.TB) {
	t.Helper()
	l.StopWriting(t)
	want := int(l.Counts().Rows.Load())
	for seen := -1; seen < l.observer.Count(); {
		seen = l.observer.Count()
		ctx, cancel := context.WithTimeout(t.Context(), l.cfg.Patience)
		err := l.observer.Wait(ctx, func() bool { return l.observer.Count() >= want })
		cancel()
		if err == nil {
			return
		}
	}
	t.Logf("ledger: %d of %d events were seen, and no other for %s", l.observer.Count(), want, l.cfg.Patience)
}

// Report judges the run. The relay should have stopped, so that nothing is
// added any more.
func (l *Ledger) Report(t testing.TB) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := l.observer.CatchUp(ctx); err != nil {
		t.Fatalf("ledger: catching up with the topics: %v", err)
	}
	committed, err := l.truth.Read(ctx, l.cfg.Postgres.Connect(t, l.cfg.Database))
	if err != nil {
		t.Fatalf("ledger: %v", err)
	}
	dump, err := l.dump(ctx, t)
	if err != nil {
		t.Fatalf("ledger: reading the topic again: %v", err)
	}
	l.mu.Lock()
	acks := l.acks
	l.mu.Unlock()
	report := Check(History{
		Committed: committed, Partitions: l.cfg.Partitions, Seen: l.observer.Seen(), Dump: dump,
		Positions: l.observer.Positions(), Acks: acks, MayCutRows: l.cfg.MayCutRows,
		AtLeastOnce: l.cfg.AtLeastOnce, SlotFellBack: l.cfg.SlotFallsBack,
	})
	t.Logf("ledger: %s", &report)
	return report
}

// dump reads everything once more with a reader that was not there before.
func (l *Ledger) dump(ctx context.Context, t testing.TB) ([]Record, error) {
	client := l.cfg.Kafka.Client(t, ReaderOptions(l.cfg.Topic, l.cfg.PositionTopic)...)
	later := NewObserver(client, l.cfg.Topic, l.cfg.PositionTopic)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- later.Run(ctx) }()
	err := later.CatchUp(ctx)
	cancel()
	if runErr := <-done; runErr != nil {
		return nil, runErr
	}
	if err != nil {
		return nil, fmt.Errorf("catching up: %w", err)
	}
	return append([]Record{}, later.Seen()...), nil
}

// sampleAcks looks at the slot, then at the position topic's high watermark, or
// at those of the topic where there is none: what justifies the acknowledgement
// must lie below. Unreachable
// servers give no sample.
func (l *Ledger) sampleAcks(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), admin *kadm.Client) {
	for sleep(ctx, retryInterval) {
		conn, err := connect(ctx)
		if err != nil {
			continue
		}
		for err == nil && sleep(ctx, retryInterval) {
			err = l.sampleAck(ctx, conn, admin)
		}
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

func (l *Ledger) sampleAck(ctx context.Context, conn *pgx.Conn, admin *kadm.Client) error {
	var text string
	if err := conn.QueryRow(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", l.cfg.Slot).Scan(&text); err != nil {
		return err
	}
	confirmed, err := cdc.ParseLSN(text)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	sample := AckSample{ConfirmedLSN: confirmed}
	if l.cfg.AtLeastOnce {
		sample.EndOffsets = endOffsets(bounded, admin, l.cfg.Topic, l.cfg.Partitions)
	} else if ends := endOffsets(bounded, admin, l.cfg.PositionTopic, 1); ends != nil {
		sample.EndOffset = ends[0]
	}
	if sample.EndOffset == 0 && sample.EndOffsets == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, sample)
	return nil
}

// endOffsets are the high watermarks of all partitions, or nil.
func endOffsets(ctx context.Context, admin *kadm.Client, topic string, partitions int32) []int64 {
	listed, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil
	}
	ends := make([]int64, partitions)
	for partition := range ends {
		end, ok := listed.Lookup(topic, int32(partition))
		if !ok || end.Err != nil {
			return nil
		}
		ends[partition] = end.Offset
	}
	return ends
}
