package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// drain is one measurement of one reader of a backlog.
type drain struct {
	Backlog       string  `json:"backlog"`
	Reader        string  `json:"reader"` // discard receives and does nothing
	Run           int     `json:"run"`
	Rows          int     `json:"rows"`
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rows_per_second"`
	// CPU seconds per million rows; 0 where it is not known.
	ReaderCPU    float64 `json:"reader_cpu_s_per_million"`
	WalsenderCPU float64 `json:"walsender_cpu_s_per_million"`
	KafkaCPU     float64 `json:"kafka_cpu_s_per_million,omitempty"`
	BytesPerRow  float64 `json:"kafka_bytes_per_row,omitempty"` // of the log
	PeakRSSMiB   float64 `json:"peak_rss_mib,omitempty"`
	IdleCores    float64 `json:"idle_cores"` // of the machine, on average
}

// stopwatch runs while a backlog is drained.
type stopwatch struct {
	began time.Time
	idle  time.Duration
}

func startWatch() stopwatch { return stopwatch{time.Now(), machineIdle()} }

// stop returns what a drain of the backlog took; the caller knows the CPU time
// of reader and walsender.
func (w stopwatch) stop(backlog backlog, cpu, walsender time.Duration) drain {
	took, idle := time.Since(w.began), machineIdle()-w.idle
	perMillion := 1e6 / float64(backlog.rows)
	return drain{
		Backlog: backlog.shape.name, Rows: backlog.rows, Seconds: took.Seconds(), RowsPerSecond: float64(backlog.rows) / took.Seconds(),
		ReaderCPU: cpu.Seconds() * perMillion, WalsenderCPU: walsender.Seconds() * perMillion, IdleCores: idle.Seconds() / took.Seconds(),
	}
}

func (b *bed) measureDrains(ctx context.Context, opts options, debezium []reader, p *progress, results *results) error {
	for _, shape := range []shape{oneRowTransactions, oneTransaction} {
		if err := b.drains(ctx, shape, opts, opts.readers(debezium), p, results); err != nil {
			return fmt.Errorf("%s: %w", shape.name, err)
		}
	}
	return nil
}

// drains makes one backlog behind a slot per reader and run, and drains each
// slot once: the readers in turn, as many times as there are runs.
func (b *bed) drains(ctx context.Context, shape shape, opts options, readers []reader, p *progress, results *results) error {
	d, err := b.newDatabase(ctx)
	if err != nil {
		return err
	}
	seats := make([][]*seat, opts.runs)
	for run := range seats {
		for _, r := range readers {
			s, err := r.seat(ctx, b, d)
			if err != nil {
				return fmt.Errorf("prepare %s: %w", r.name, err)
			}
			seats[run] = append(seats[run], s)
		}
	}
	p.step("making %d rows in %s", opts.rows, shape.name)
	backlog, err := b.fill(ctx, d, shape, opts.rows, 1, payloadBytes)
	if err != nil {
		return err
	}
	indices := make([]int, len(readers))
	for i := range indices {
		indices[i] = i
	}
	for run := range seats {
		for _, i := range inTurn(indices, run) {
			p.step("%s: run %d of %d, %s", shape.name, run+1, opts.runs, readers[i].name)
			result, err := b.drainOnce(ctx, seats[run][i], backlog)
			if err != nil {
				return fmt.Errorf("%s: %w", readers[i].name, err)
			}
			result.Reader, result.Run = readers[i].name, run+1
			results.Drains = append(results.Drains, result)
		}
	}
	return b.dropDatabase(ctx, d)
}

// drainOnce drains a seat and adds what the broker had to do.
func (b *bed) drainOnce(ctx context.Context, s *seat, backlog backlog) (drain, error) {
	before, _ := processCPU(b.kafka.PID())
	result, err := s.drain(ctx, backlog)
	if err != nil || s.topic == "" {
		return result, err
	}
	if after, known := processCPU(b.kafka.PID()); known {
		result.KafkaCPU = (after - before).Seconds() * 1e6 / float64(backlog.rows)
	}
	return result, nil
}

// relayBacklog runs the relay until everything committed is in Kafka. Its start
// and stop are part of the time.
func (b *bed) relayBacklog(ctx context.Context, r *relay, backlog backlog) (drain, error) {
	cmd := exec.CommandContext(ctx, b.binary, "run", "--once", "--config", r.config)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	b.take(r.variant.way)
	watch := startWatch()
	if err := cmd.Start(); err != nil {
		return drain{}, err
	}
	walsender := b.watchWalsender(ctx, r.database.name, r.slot)
	defer walsender.stop()
	memory := watchProcess(func() int { return cmd.Process.Pid })
	defer memory.stop()
	if err := cmd.Wait(); err != nil {
		return drain{}, fmt.Errorf("%w\n%s", err, output.Bytes())
	}
	result := watch.stop(backlog, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), walsender.cpu())
	result.PeakRSSMiB = float64(memory.peakRSS()) / (1 << 20)
	size, err := b.checkRows(ctx, backlog.rows, r.topics...)
	result.BytesPerRow = float64(size) / float64(backlog.rows)
	return result, err
}
