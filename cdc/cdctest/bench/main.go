package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/term"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func main() {
	if code, ran := cdctest.RunRole(); ran {
		os.Exit(code)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout io.Writer, stderr *os.File) int {
	opts, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	progress := &progress{to: stderr, tty: term.IsTerminal(int(stderr.Fd()))}
	results, err := measure(ctx, opts, progress)
	progress.done()
	// What was measured before an error took long to get.
	err = errors.Join(err, results.print(stdout, opts.output))
	if opts.growth.plot != "" && len(results.Growth) > 0 {
		err = errors.Join(err, os.WriteFile(opts.growth.plot, plotGrowth(results.Growth), 0o644))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// measure starts the servers, measures everything and removes them. With an
// error it returns what was measured before.
func measure(ctx context.Context, opts options, p *progress) (results results, err error) {
	p.step("starting PostgreSQL and Kafka, building cdc-relay")
	b, err := startBed(ctx, opts)
	if err != nil {
		return results, err
	}
	defer func() { err = errors.Join(err, b.remove()) }()
	results.Environment = b.describe(opts)
	if opts.brokerUp > 0 {
		p.step("warming up the broker for %s", opts.brokerUp)
		if err := b.warmUpBroker(ctx, opts); err != nil {
			return results, fmt.Errorf("warm up the broker: %w", err)
		}
	}
	var debezium []reader
	if opts.debezium {
		p.step("starting Kafka Connect, warming up Debezium for %s", opts.debeziumWarmUp)
		if debezium, err = b.startDebezium(ctx, opts.debeziumWarmUp); err != nil {
			return results, fmt.Errorf("debezium: %w", err)
		}
	}
	steps := []struct {
		name string
		run  func() error
	}{
		{measureDrain, func() error { return b.measureDrains(ctx, opts, debezium, p, &results) }},
		{measureLatency, func() error { return b.measureLatencies(ctx, opts, debezium, p, &results) }},
		{measureIdle, func() error { return b.measureIdle(ctx, opts, debezium, p, &results) }},
		{measureGrowth, func() error { return b.measureGrowth(ctx, opts, p, &results) }},
	}
	for _, step := range steps {
		if !slices.Contains(opts.measure, step.name) {
			continue
		}
		if err := step.run(); err != nil {
			return results, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return results, nil
}

// progress tells a person who waits what is under way; a log gets nothing.
type progress struct {
	to  io.Writer
	tty bool
}

func (p *progress) step(format string, args ...any) {
	if p.tty {
		fmt.Fprintf(p.to, "\r\033[K"+format+" ...", args...)
	}
}

func (p *progress) done() {
	if p.tty {
		fmt.Fprint(p.to, "\r\033[K")
	}
}
