package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// drain is one measurement of one reader of a backlog.
type drain struct {
	Backlog       string  `json:"backlog"`
	Reader        string  `json:"reader"` // relay, or discard: receives and does nothing
	Rows          int     `json:"rows"`
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rows_per_second"`
	// CPU seconds per million rows; 0 where it is not known.
	ReaderCPU    float64 `json:"reader_cpu_s_per_million"`
	WalsenderCPU float64 `json:"walsender_cpu_s_per_million"`
	PeakRSSMiB   float64 `json:"peak_rss_mib,omitempty"` // of the relay
}

func newDrain(shape shape, reader string, rows int, took time.Duration, cpu, walsender time.Duration) drain {
	perMillion := 1e6 / float64(rows)
	return drain{
		Backlog: shape.name, Reader: reader, Rows: rows, Seconds: took.Seconds(), RowsPerSecond: float64(rows) / took.Seconds(),
		ReaderCPU: cpu.Seconds() * perMillion, WalsenderCPU: walsender.Seconds() * perMillion,
	}
}

// drains makes one backlog behind as many slots as there are runs, and drains
// each slot once.
func (b *bed) drains(ctx context.Context, shape shape, opts options, p *progress) ([]drain, error) {
	database := fmt.Sprintf("bench_%d", b.relays)
	if err := b.exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return nil, err
	}
	var relays []*relay
	for range opts.runs {
		r, err := b.newRelay(ctx, database)
		if err != nil {
			return nil, err
		}
		relays = append(relays, r)
	}
	var discards []string
	for i := range opts.runs {
		slot := fmt.Sprintf("discard_%d", i)
		if err := b.exec(ctx, database, fmt.Sprintf("SELECT pg_copy_logical_replication_slot('%s', '%s')", relays[0].slot, slot)); err != nil {
			return nil, err
		}
		discards = append(discards, slot)
	}
	p.step("making %d rows in %s", opts.rows, shape.name)
	target, err := b.fill(ctx, database, shape, opts.rows)
	if err != nil {
		return nil, fmt.Errorf("make the backlog: %w", err)
	}
	var results []drain
	for i := range opts.runs {
		p.step("%s: run %d of %d, receiving only", shape.name, i+1, opts.runs)
		received, err := b.discard(ctx, database, discards[i], shape, target, opts.rows)
		if err != nil {
			return nil, fmt.Errorf("receive only: %w", err)
		}
		p.step("%s: run %d of %d, relay", shape.name, i+1, opts.runs)
		relayed, err := b.relayBacklog(ctx, relays[i], shape, opts.rows)
		if err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		}
		results = append(results, received, relayed)
	}
	// Slots that nobody reads would keep the WAL of what follows.
	return results, b.exec(ctx, "postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+database+"'")
}

// discard receives and decodes the backlog in this process, and nothing more.
func (b *bed) discard(ctx context.Context, database, slot string, shape shape, target cdc.LSN, rows int) (drain, error) {
	source, err := postgres.New(postgres.Config{
		DSN:  func() (string, error) { return b.postgres.DSN(database, "postgres"), nil },
		Slot: slot, Publication: publication, Table: "public.outbox",
	})
	if err != nil {
		return drain{}, err
	}
	defer source.Close()
	began, cpuBefore := time.Now(), ownCPU()
	stream, err := source.Attach(ctx)
	if err != nil {
		return drain{}, err
	}
	defer stream.Close()
	watch := b.watchWalsender(ctx, database, slot)
	defer watch.stop()
	received := 0
	statusAt := time.Now().Add(stream.StatusInterval())
	for received < rows {
		message, err := stream.Receive(statusAt)
		switch {
		case err != nil:
			return drain{}, err
		case ctx.Err() != nil:
			return drain{}, ctx.Err()
		case message == nil:
			if err := stream.Status(0, false); err != nil {
				return drain{}, err
			}
			statusAt = time.Now().Add(stream.StatusInterval())
		case message.Kind == cdc.MessageInsert:
			received++
		case message.Kind == cdc.MessageKeepalive && message.WALEnd >= target:
			return drain{}, fmt.Errorf("%d rows came, want %d", received, rows)
		}
	}
	took, cpu := time.Since(began), ownCPU()-cpuBefore
	return newDrain(shape, "discard", rows, took, cpu, watch.cpu()), nil
}

// relayBacklog runs the relay until everything committed is in Kafka. Its start
// and stop are part of the time.
func (b *bed) relayBacklog(ctx context.Context, r *relay, shape shape, rows int) (drain, error) {
	cmd := exec.CommandContext(ctx, b.binary, "run", "--once", "--config", r.config)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return drain{}, err
	}
	walsender := b.watchWalsender(ctx, r.database, r.slot)
	defer walsender.stop()
	memory := watchProcess(func() int { return cmd.Process.Pid })
	defer memory.stop()
	if err := cmd.Wait(); err != nil {
		return drain{}, fmt.Errorf("%w\n%s", err, output.Bytes())
	}
	took := time.Since(began)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	result := newDrain(shape, "relay", rows, took, cpu, walsender.cpu())
	result.PeakRSSMiB = float64(memory.peakRSS()) / (1 << 20)
	return result, b.checkRows(ctx, r.topic, rows)
}
