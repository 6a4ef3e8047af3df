package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr, os.Environ(), signals))
}

// Main runs one command line and returns the exit code. Nothing that is said on
// stderr waits for its reader, whom the signals do not wait for either.
func Main(args []string, stdout, stderr io.Writer, env []string, signals <-chan os.Signal) int {
	messages := newLogQueue(stderr)
	go messages.run()
	defer messages.close(logFlushTimeout)
	p := &program{stdout: stdout, stderr: messages, env: env}
	return supervise(messages, signals, func(ctx context.Context) int { return p.execute(ctx, args) })
}

// supervise runs the work. The first signal asks for an orderly stop, the second
// returns at once with 130, leaving the work to die with the process.
func supervise(stderr io.Writer, signals <-chan os.Signal, work func(context.Context) int) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan int, 1) // the work never waits for us
	go func() { done <- work(ctx) }()
	for stopping := false; ; stopping = true {
		select {
		case code := <-done:
			return code
		case s := <-signals:
			if stopping {
				fmt.Fprintln(stderr, "cdc-relay: stopped at once on the second signal; what was in flight is settled at the next start")
				return exitForced
			}
			fmt.Fprintf(stderr, "cdc-relay: %s received, stopping in good order; once more stops at once\n", s)
			cancel()
		}
	}
}
