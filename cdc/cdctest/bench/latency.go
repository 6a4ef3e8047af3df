package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// latency is one measurement: from just before COMMIT is sent to the moment at
// which a read_committed consumer has the record.
type latency struct {
	TransactionsPerSecond int     `json:"transactions_per_second"`
	Samples               int     `json:"samples"`
	P50Milliseconds       float64 `json:"p50_ms"`
	P99Milliseconds       float64 `json:"p99_ms"`
	MaxMilliseconds       float64 `json:"max_ms"`
}

const latencyWriters = 8

// latency runs a relay under a steady load of one-row transactions.
func (b *bed) latency(ctx context.Context, rate int, warmUp, measured time.Duration) (result latency, err error) {
	database := fmt.Sprintf("bench_%d", b.relays)
	if err := b.exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return result, err
	}
	r, err := b.newRelay(ctx, database)
	if err != nil {
		return result, err
	}
	client, err := b.consumer(r.topic)
	if err != nil {
		return result, err
	}
	defer client.Close()
	cmd := exec.CommandContext(ctx, b.binary, "run", "--config", r.config)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return result, err
	}
	m := &meter{sent: map[string]time.Time{}, from: time.Now().Add(warmUp)}
	loadErr := b.load(ctx, m, client, database, rate, warmUp+measured)
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself; Wait tells
	if err := cmd.Wait(); err != nil || loadErr != nil {
		return result, errors.Join(loadErr, err, errors.New(output.String()))
	}
	result = m.result()
	result.TransactionsPerSecond = rate
	return result, b.exec(ctx, "postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+database+"'")
}

// load writes for the given time and consumes until every row arrived.
func (b *bed) load(ctx context.Context, m *meter, client *kgo.Client, database string, rate int, d time.Duration) error {
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
			every := time.Second * latencyWriters / time.Duration(rate)
			return m.write(writing, ctx, conn, every, time.Duration(i)*every/latencyWriters)
		})
	}
	group.Go(func() error {
		consuming, cancel := context.WithTimeout(ctx, d+time.Minute)
		defer cancel()
		go func() {
			writers.Wait()
			m.complete()
		}()
		return m.consume(consuming, client)
	})
	return group.Wait()
}

// meter matches what was sent with what arrived.
type meter struct {
	from time.Time // only what was committed later counts

	mu       sync.Mutex // guards the fields below
	sent     map[string]time.Time
	finished bool
	took     []time.Duration
}

// write commits one row per interval until writing ends.
func (m *meter) write(writing, ctx context.Context, conn *pgx.Conn, every, offset time.Duration) error {
	timer := time.NewTimer(offset)
	defer timer.Stop()
	next := time.Now().Add(offset)
	for {
		select {
		case <-timer.C:
		case <-writing.Done():
			return nil
		}
		if err := m.writeOne(ctx, conn); err != nil {
			return err
		}
		next = next.Add(every)
		timer.Reset(time.Until(next))
	}
}

func (m *meter) writeOne(ctx context.Context, conn *pgx.Conn) error {
	id := uuid.Must(uuid.NewV7())
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, 'bench', $2, 'bench.row.v1', $3)`,
		id, id.String()[30:], fmt.Sprintf(`{"filler": %q}`, strings.Repeat("x", payloadBytes-14)))
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.sent[id.String()] = time.Now()
	m.mu.Unlock()
	return tx.Commit(ctx)
}

func (m *meter) complete() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished = true
}

// consume returns when everything that was sent has arrived.
func (m *meter) consume(ctx context.Context, client *kgo.Client) error {
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
			if header.Key != "ce_id" {
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
