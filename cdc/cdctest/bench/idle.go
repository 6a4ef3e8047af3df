package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idle is one measurement of a reader that has nothing to do.
type idle struct {
	Reader         string  `json:"reader"`
	Run            int     `json:"run"`
	Seconds        float64 `json:"seconds"`
	CPUPercent     float64 `json:"cpu_percent_of_a_core"`
	WalsenderShare float64 `json:"walsender_cpu_percent_of_a_core"`
}

// settle is the time between a reader's start and the begin of its idleness; as
// long as that at most.
const settle = 5 * time.Second

func (b *bed) measureIdle(ctx context.Context, opts options, debezium []reader, p *progress, results *results) error {
	readers := steady(opts.readers(debezium))
	for run := range opts.runs {
		for _, r := range inTurn(readers, run) {
			p.step("idle for %s: run %d of %d, %s", opts.idle, run+1, opts.runs, r.name)
			result, err := b.idle(ctx, r, opts.idle)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			result.Reader, result.Run = r.name, run+1
			results.Idle = append(results.Idle, result)
		}
	}
	return nil
}

// idle follows a reader whose database nobody writes to.
func (b *bed) idle(ctx context.Context, r reader, d time.Duration) (result idle, err error) {
	database, err := b.newDatabase(ctx)
	if err != nil {
		return result, err
	}
	s, err := r.seat(ctx, b, database)
	if err != nil {
		return result, err
	}
	running, err := s.start(ctx)
	if err != nil {
		return result, err
	}
	watch := b.watchWalsender(ctx, database.name, s.slot)
	err = sleep(ctx, min(settle, d))
	began, senderBefore := time.Now(), watch.cpu()
	before, _ := processCPU(running.pid)
	err = errors.Join(err, sleep(ctx, d))
	after, _ := processCPU(running.pid)
	took, sender := time.Since(began), watch.cpu()-senderBefore
	watch.stop()
	if err = errors.Join(err, running.stop()); err != nil {
		return result, err
	}
	result = idle{
		Seconds: took.Seconds(), CPUPercent: 100 * (after - before).Seconds() / took.Seconds(),
		WalsenderShare: 100 * sender.Seconds() / took.Seconds(),
	}
	return result, b.dropDatabase(ctx, database)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
