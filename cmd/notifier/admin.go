package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cdc-relay/cdc-relay/notifier"
)

// livenessLimit is how long the loop may stand still: one turn is at most a
// post, a dead letter and some statements.
const livenessLimit = 2 * time.Minute

// adminServer answers probes and scrapes.
type adminServer struct {
	server *http.Server
	logger *slog.Logger
}

func newAdminServer(n *notifier.Notifier, gatherer prometheus.Gatherer, logger *slog.Logger) *adminServer {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		if still := time.Since(n.Status().MovedAt); still > livenessLimit {
			http.Error(w, fmt.Sprintf("the loop has not moved for %s", still.Truncate(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status := n.Status()
		if status.State == notifier.StateRunning {
			fmt.Fprintln(w, status.State)
			return
		}
		text := status.State
		if status.Trouble != nil {
			text += ": " + status.Trouble.Error()
		}
		http.Error(w, text, http.StatusServiceUnavailable)
	})
	return &adminServer{logger: logger, server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}
}

// run serves until ctx ends; trouble of the admin port does not stop the notifier.
func (a *adminServer) run(ctx context.Context, listener net.Listener) {
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := a.server.Shutdown(deadline); err != nil {
			_ = a.server.Close() // what is left after the deadline is cut
		}
	})()
	if err := a.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		a.logger.Error("the admin port serves no longer", "reason", err)
	}
	<-stopped // at the latest when ctx ends
}
