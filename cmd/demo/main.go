package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// Exit codes.
const (
	exitFine    = 0
	exitFailure = 1
	exitUsage   = 2
	exitUnclean = 4
)

func main() {
	if code, ran := cdctest.RunRole(); ran {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once; its children notice
	os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	duration time.Duration
	check    bool
	listen   string
	rate     float64
	since    int64

	// meanwhile makes the load go on until it is closed, however long a test takes
	// for what it does beside it; nil: that does not count.
	meanwhile <-chan struct{}
}

// Main runs one command line and returns the exit code.
func Main(ctx context.Context, args []string, stdin *os.File, stdout, stderr io.Writer) int {
	o := options{}
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.duration, "duration", 0, "stop after this time; 0 runs until q or Ctrl-C")
	flags.BoolVar(&o.check, "check", false, "inject faults, audit at the end, exit 0 only if clean; needs --duration")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8088", "`ADDRESS` of the page; another port if it is taken; with port 0 every program gets a free port")
	flags.Float64Var(&o.rate, "rate", 0, "payments a second; 0 is 5, and 150 with --check")
	flags.Int64Var(&o.since, "since", 0, "Unix `TIME` from which the time to the first payment counts; 0 is the start of the program")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return exitFine
		}
		fmt.Fprintln(stderr, "demo:", err)
		return exitUsage
	}
	if err := o.complete(flags.Args()); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return exitUsage
	}
	return runDemo(ctx, o, stdin, stdout, stderr)
}

// complete checks the flags and fills in what follows from others.
func (o *options) complete(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q: there are no arguments, only flags", rest[0])
	case o.check && o.duration < 5*time.Second:
		return errors.New("--check needs --duration of at least 5s, for the faults to find their place")
	case o.duration < 0:
		return errors.New("--duration is negative")
	case o.rate < 0 || o.rate > 1000:
		return errors.New("--rate: want 0 to 1000")
	}
	if o.rate == 0 && o.check {
		o.rate = 150
	}
	if o.rate == 0 {
		o.rate = 5
	}
	return nil
}

// started is the moment from which the first payment is timed.
func (o *options) started(now time.Time) time.Time {
	if o.since > 0 {
		return time.Unix(o.since, 0)
	}
	return now
}
