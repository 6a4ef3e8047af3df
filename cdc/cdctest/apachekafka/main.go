// Command apachekafka runs a command beside an Apache Kafka:
//
//	go run ./cdc/cdctest/apachekafka -- go test ./...
//
// It fetches the broker by Maven (once), starts a fresh one of one node, gives
// its address to the command in KAFKA_BROKERS, stops it when the command has
// ended, and exits with the command's code.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func main() {
	if code, ran := cdctest.RunRole(); ran {
		os.Exit(code)
	}
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: apachekafka -- COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	// The terminal sends Ctrl-C to the command too; the broker goes after it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "apachekafka:", err)
	}
	os.Exit(code)
}

// run returns the command's exit code, or 1 if there is none.
func run(ctx context.Context, args []string) (int, error) {
	begin := time.Now()
	server, err := cdctest.NewApacheKafkaServer(cdctest.ApacheKafkaConfig{})
	if err != nil {
		return 1, err
	}
	if err := server.Start(ctx); err != nil {
		return 1, errors.Join(err, server.Remove())
	}
	brokers := strings.Join(server.Brokers(), ",")
	fmt.Fprintf(os.Stderr, "apachekafka: ready at %s after %s\n", brokers, time.Since(begin).Round(time.Second/10))
	code, err := runCommand(ctx, args, cdctest.BrokersVariable+"="+brokers)
	if removeErr := server.Remove(); removeErr != nil {
		return max(code, 1), errors.Join(err, removeErr)
	}
	return code, err
}

// runCommand runs the command with this process' input and output. When ctx
// ends, the command is asked to stop.
func runCommand(ctx context.Context, args []string, environment string) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), environment)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run %s: %w", args[0], err)
	}
	return 0, nil
}
