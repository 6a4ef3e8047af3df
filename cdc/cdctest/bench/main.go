package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// options are the flags.
type options struct {
	rows    int           // of each backlog
	runs    int           // of each measurement
	latency time.Duration // measured per rate, after the warm-up
	output  string        // text or json
	warmUp  time.Duration // before latency is measured
	rates   []int         // transactions per second at which it is

	newKafka func() (*cdctest.KafkaServer, error)
}

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
	opts.warmUp, opts.rates, opts.newKafka = warmUp, []int{100, 1000}, apacheKafka
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	progress := &progress{to: stderr, tty: term.IsTerminal(int(stderr.Fd()))}
	results, err := measure(ctx, opts, progress)
	progress.done()
	if err == nil {
		err = results.print(stdout, opts.output)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// warmUp: cold brokers and caches are slower.
const warmUp = 5 * time.Second

func apacheKafka() (*cdctest.KafkaServer, error) {
	return cdctest.NewApacheKafkaServer(cdctest.ApacheKafkaConfig{})
}

func parse(args []string, stderr io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opts.rows, "rows", 1_000_000, "rows of each backlog")
	flags.IntVar(&opts.runs, "runs", 3, "runs of each measurement")
	flags.DurationVar(&opts.latency, "latency", 20*time.Second, "time over which latency is measured per rate")
	flags.StringVar(&opts.output, "o", "text", "output: text or json")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 || opts.rows < writers || opts.runs < 1 || opts.latency < time.Second || opts.output != "text" && opts.output != "json" {
		err := fmt.Errorf("want -rows of at least %d, -runs of at least 1, -latency of at least 1s, -o text or json, and no arguments", writers)
		fmt.Fprintln(stderr, "bench:", err)
		return opts, err
	}
	return opts, nil
}

// measure starts the servers, measures everything and removes them.
func measure(ctx context.Context, opts options, p *progress) (results results, err error) {
	p.step("starting PostgreSQL and Kafka, building cdc-relay")
	b, err := startBed(ctx, opts.newKafka)
	if err != nil {
		return results, err
	}
	defer func() { err = errors.Join(err, b.remove()) }()
	results.Environment = b.describe(opts)
	for _, shape := range []shape{oneRowTransactions, oneTransaction} {
		drains, err := b.drains(ctx, shape, opts, p)
		if err != nil {
			return results, fmt.Errorf("drain %s: %w", shape.name, err)
		}
		results.Drains = append(results.Drains, drains...)
	}
	for _, rate := range opts.rates {
		for range opts.runs {
			p.step("latency at %d transactions per second", rate)
			latency, err := b.latency(ctx, rate, opts.warmUp, opts.latency)
			if err != nil {
				return results, fmt.Errorf("latency at %d transactions per second: %w", rate, err)
			}
			results.Latencies = append(results.Latencies, latency)
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
