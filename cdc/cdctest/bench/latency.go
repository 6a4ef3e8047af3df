package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// latency is one measurement: from just before COMMIT is sent to the moment at
// which a read_committed consumer has the record.
type latency struct {
	Reader string `json:"reader"`
	Run    int    `json:"run"`
	// Rate is the one that was asked for; 0: as many as the database takes.
	Rate int `json:"rate_per_second"`
	// Committed is what the database took per second.
	Committed       float64 `json:"committed_per_second"`
	Samples         int     `json:"samples"`
	P50Milliseconds float64 `json:"p50_ms"`
	P99Milliseconds float64 `json:"p99_ms"`
	MaxMilliseconds float64 `json:"max_ms"`
}

const latencyWriters = 8

// fewestSamples are taken however long that lasts: a machine that stands still for
// the measured time would have none.
const fewestSamples = 50

// drainTimeout bounds how far a reader may be behind when the load ends.
const drainTimeout = 3 * time.Minute

func (b *bed) measureLatencies(ctx context.Context, opts options, debezium []reader, p *progress, results *results) error {
	readers := steady(opts.readers(debezium))
	for _, rate := range opts.rates {
		for run := range opts.runs {
			for _, r := range inTurn(readers, run) {
				p.step("latency at %s: run %d of %d, %s", rateName(rate), run+1, opts.runs, r.name)
				result, err := b.latency(ctx, r, rate, opts.warmUp, opts.latency)
				if err != nil {
					return fmt.Errorf("%s at %s: %w", r.name, rateName(rate), err)
				}
				result.Reader, result.Run = r.name, run+1
				results.Latencies = append(results.Latencies, result)
			}
			if rate == 0 || rate > mostBareRate {
				continue
			}
			p.step("latency at %s: run %d of %d, %s", rateName(rate), run+1, opts.runs, bareName)
			result, err := b.bareLatency(ctx, rate, opts.warmUp, opts.latency)
			if err != nil {
				return fmt.Errorf("%s at %s: %w", bareName, rateName(rate), err)
			}
			result.Run = run + 1
			results.Latencies = append(results.Latencies, result)
		}
	}
	return nil
}

// warmUpBroker lets its Java machine compile what it will run often: many small
// Kafka transactions, then large ones.
func (b *bed) warmUpBroker(ctx context.Context, opts options) error {
	relay := steady(opts.readers(nil))[0]
	for _, rate := range []int{1000, 0} {
		if _, err := b.latency(ctx, relay, rate, 0, opts.brokerUp/2); err != nil {
			return fmt.Errorf("%s at %s: %w", relay.name, rateName(rate), err)
		}
	}
	return nil
}

func rateName(rate int) string {
	if rate == 0 {
		return "max"
	}
	return fmt.Sprintf("%d/s", rate)
}

// latency runs a reader under a steady load of one-row transactions.
func (b *bed) latency(ctx context.Context, r reader, rate int, warmUp, measured time.Duration) (result latency, err error) {
	database, err := b.newDatabase(ctx)
	if err != nil {
		return result, err
	}
	s, err := r.seat(ctx, b, database)
	if err != nil {
		return result, err
	}
	client, err := b.consumer(s.topic)
	if err != nil {
		return result, err
	}
	defer client.Close()
	running, err := s.start(ctx)
	if err != nil {
		return result, err
	}
	m := newMeter(s.idHeader, warmUp)
	loadErr := b.load(ctx, m, client, running.failure, database.name, rate, warmUp+measured)
	if err := errors.Join(loadErr, running.stop()); err != nil {
		return result, err
	}
	result = m.result()
	result.Rate, result.Committed = rate, float64(result.Samples)/m.lasted(measured).Seconds()
	if deleted, err := kadm.NewClient(client).DeleteTopics(ctx, s.topic); err != nil || deleted.Error() != nil {
		return result, errors.Join(err, deleted.Error())
	}
	return result, b.dropDatabase(ctx, database)
}

// load writes for the given time and consumes until every row arrived.
func (b *bed) load(ctx context.Context, m *meter, client *kgo.Client, failure func() error, database string, rate int, d time.Duration) error {
	group, ctx := errgroup.WithContext(ctx)
	writing, written := context.WithTimeout(ctx, d)
	defer written()
	var writers sync.WaitGroup
	for i := range latencyWriters {
		writers.Add(1)
		group.Go(func() error {
			defer writers.Done()
			conn, err := b.connect(ctx, database)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			every := time.Duration(0)
			if rate > 0 {
				every = time.Second * latencyWriters / time.Duration(rate)
			}
			return m.write(writing, ctx, conn, every, time.Duration(i)*every/latencyWriters)
		})
	}
	group.Go(func() error {
		consuming, cancel := context.WithTimeout(ctx, d+drainTimeout)
		defer cancel()
		go func() {
			writers.Wait()
			m.complete()
		}()
		return m.consume(consuming, client, failure)
	})
	return group.Wait()
}

// meter matches what was sent with what arrived.
type meter struct {
	idHeader string
	from     time.Time // only what was committed later counts

	mu       sync.Mutex // guards the fields below
	sent     map[string]time.Time
	counted  int       // of all that were sent, those that count
	last     time.Time // when the last one was sent
	finished bool
	took     []time.Duration
}

func newMeter(idHeader string, warmUp time.Duration) *meter {
	return &meter{idHeader: idHeader, sent: map[string]time.Time{}, from: time.Now().Add(warmUp)}
}

// write commits one row per interval until writing ends and enough count.
func (m *meter) write(writing, ctx context.Context, conn *pgx.Conn, every, offset time.Duration) error {
	timer := time.NewTimer(offset)
	defer timer.Stop()
	next := time.Now().Add(offset)
	for {
		select {
		case <-timer.C:
		case <-writing.Done():
			if m.enough() {
				return nil
			}
			if err := sleep(ctx, every); err != nil {
				return err
			}
		}
		if err := m.writeOne(ctx, conn); err != nil {
			return err
		}
		next = next.Add(every)
		timer.Reset(max(0, time.Until(next)))
	}
}

func (m *meter) writeOne(ctx context.Context, conn *pgx.Conn) error {
	id := uuid.Must(uuid.NewV7())
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, 'bench-0', $2, 'bench.row.v1', $3)`,
		id, id.String()[30:], fmt.Sprintf(`{"filler": %q}`, strings.Repeat("x", payloadBytes-14)))
	if err != nil {
		return err
	}
	m.begin(id.String())
	return tx.Commit(ctx)
}

// begin notes that what is named id is sent now.
func (m *meter) begin(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sent[id], m.last = now, now
	if now.After(m.from) {
		m.counted++
	}
}

func (m *meter) enough() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counted >= fewestSamples
}

// lasted is for how long was sent what counts.
func (m *meter) lasted(measured time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(measured, m.last.Sub(m.from))
}

func (m *meter) complete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished = true
}

// consume returns when everything that was sent has arrived.
func (m *meter) consume(ctx context.Context, client *kgo.Client, failure func() error) error {
	lookAt := time.Now()
	for {
		poll, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := client.PollFetches(poll)
		cancel()
		m.arrived(fetches, time.Now())
		m.mu.Lock()
		missing, finished := len(m.sent), m.finished
		m.mu.Unlock()
		if missing == 0 && finished {
			return nil
		}
		if now := time.Now(); now.After(lookAt) {
			if err := failure(); err != nil {
				return err
			}
			lookAt = now.Add(time.Second)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d rows have not arrived: %w", missing, ctx.Err())
		}
	}
}

func (m *meter) arrived(fetches kgo.Fetches, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fetches.EachRecord(func(record *kgo.Record) {
		for _, header := range record.Headers {
			if header.Key != m.idHeader {
				continue
			}
			id := string(header.Value)
			if at, ok := m.sent[id]; ok && at.After(m.from) {
				m.took = append(m.took, now.Sub(at))
			}
			delete(m.sent, id)
		}
	})
}

func (m *meter) result() latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.took) == 0 {
		return latency{}
	}
	slices.Sort(m.took)
	at := func(share float64) float64 {
		return float64(m.took[int(share*float64(len(m.took)-1))]) / float64(time.Millisecond)
	}
	return latency{Samples: len(m.took), P50Milliseconds: at(0.5), P99Milliseconds: at(0.99), MaxMilliseconds: at(1)}
}
