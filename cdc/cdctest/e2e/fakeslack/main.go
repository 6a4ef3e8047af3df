// Command fakeslack serves package notifier/fakeslack: what a notifier posts to
// it is listed by GET /messages.
//
//	fakeslack serve [ADDRESS]         serve until stopped; default 127.0.0.1:8090
//	fakeslack healthcheck [ADDRESS]   ask a running one, for containers without a shell
//
// It is for tests, demonstrations and compose.yaml; nothing it keeps survives it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

// defaultAddress is where it listens, and is asked, unless told otherwise.
const defaultAddress = "127.0.0.1:8090"

const (
	stopTimeout  = 5 * time.Second
	probeTimeout = 3 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := execute(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fakeslack: %v\n", err)
		os.Exit(1)
	}
}

func execute(ctx context.Context, args []string) error {
	address := defaultAddress
	if len(args) == 2 {
		address = args[1]
	}
	if len(args) == 0 || len(args) > 2 {
		return errors.New("want serve or healthcheck, and at most an address")
	}
	switch args[0] {
	case "serve":
		return serve(ctx, address)
	case "healthcheck":
		return probe(ctx, address)
	default:
		return fmt.Errorf("%q is no command: want serve or healthcheck", args[0])
	}
}

// serve tells every accepted message in the log until ctx ends.
func serve(ctx context.Context, address string) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	logger.Info("fakeslack serves", "address", listener.Addr().String())
	server := &http.Server{
		Handler:           &fakeslack.Server{OnAccept: func(m fakeslack.Message) { logger.Info("message", "text", m.Text) }},
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, 1) // the sender never waits
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = server.Shutdown(deadline)
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

func probe(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/messages", nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was read to its end
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, response.Status)
	}
	return nil
}
