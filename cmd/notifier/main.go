package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/cdc-relay/cdc-relay/notifier"
)

// The exit codes; service managers depend on them.
const (
	exitFine    = 0
	exitFailure = 1 // a restart may cure it
	exitUsage   = 2 // usage or configuration
	exitPerson  = 5 // restarting does not help
	exitForced  = 130
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ(), signals))
}

// Main runs one command line and returns the exit code. The first signal asks
// for an orderly stop, the second returns at once.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, env []string, signals <-chan os.Signal) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, env: env}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan int, 1) // the work never waits for us
	go func() { done <- p.execute(ctx, args) }()
	for stopping := false; ; stopping = true {
		select {
		case code := <-done:
			return code
		case s := <-signals:
			if stopping {
				fmt.Fprintln(stderr, "notifier: stopped at once on the second signal; a message in flight may be posted again")
				return exitForced
			}
			fmt.Fprintf(stderr, "notifier: %s received, stopping in good order; once more stops at once\n", s)
			cancel()
		}
	}
}

// usageError is a wrong command line or configuration.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	if err == nil {
		return exitFine
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*notifier.Problem](err); ok {
		return exitPerson
	}
	return exitFailure
}

// printError tells the error once: a problem as what, why and fix.
func printError(w io.Writer, err error) {
	problem, ok := errors.AsType[*notifier.Problem](err)
	if !ok {
		fmt.Fprintf(w, "notifier: %v\n", err)
		return
	}
	fmt.Fprintf(w, "notifier: %s\n", problem.What)
	if problem.Why != "" {
		fmt.Fprintf(w, "  why: %s\n", problem.Why)
	}
	if problem.Fix != "" {
		fmt.Fprintf(w, "  fix: %s\n", problem.Fix)
	}
}
