package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// adminServer answers probes, metrics and questions about the relay. It only
// looks at Status, which never blocks: no probe waits for Postgres or Kafka.
type adminServer struct {
	listener net.Listener
	server   *http.Server
	logger   *slog.Logger

	relay  string
	slot   string
	status func() cdc.Status
	now    func() time.Time
}

// adminConfig is what the admin server needs.
type adminConfig struct {
	Listen   string
	Pprof    bool
	Relay    string
	Slot     string
	Status   func() cdc.Status
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
}

// livenessLimit is how long the loop may stand still before /livez fails. The
// loop takes a step at least every status interval, at most 5 s.
const livenessLimit = 30 * time.Second

// maxPublishedWait bounds the timeout of /published.
const maxPublishedWait = 30 * time.Second

// newAdminServer listens at once, so that a taken port is an error at start.
func newAdminServer(ctx context.Context, cfg adminConfig) (*adminServer, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, &cdc.Problem{
			What: "the admin port cannot listen on " + cfg.Listen, Err: err,
			Fix: "free the address or set admin.listen to another one",
		}
	}
	a := &adminServer{listener: listener, logger: cfg.Logger, relay: cfg.Relay, slot: cfg.Slot, status: cfg.Status, now: time.Now}
	a.server = &http.Server{
		Handler:           a.mux(cfg.Gatherer, cfg.Pprof && loopback(cfg.Listen)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second, // above maxPublishedWait and a profile's 30 s
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return a, nil
}

// address is where the server really listens; differs from the setting for
// port 0.
func (a *adminServer) address() string { return a.listener.Addr().String() }

// Run serves until ctx ends and returns nil: once it listens, no trouble of the
// admin port may stop the relay. Requests in flight get a second to finish; those
// that wait in /published are answered at once.
func (a *adminServer) Run(ctx context.Context) {
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	a.server.BaseContext = func(net.Listener) context.Context { return requests }
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		endRequests()
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := a.server.Shutdown(deadline); err != nil {
			_ = a.server.Close() // what is left after the deadline is cut
		}
	})()
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		a.logger.Error("the admin port serves no longer", keyReason, err)
	}
	<-stopped // at the latest when ctx ends
}

func (a *adminServer) mux(gatherer prometheus.Gatherer, withPprof bool) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		EnableOpenMetrics: true, Timeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
	}))
	mux.HandleFunc("GET /livez", a.livez)
	mux.HandleFunc("GET /startupz", a.startupz)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /status", a.statusJSON)
	mux.HandleFunc("GET /published", a.published)
	if withPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// livez fails when the loop stands still: only then does a restart help.
func (a *adminServer) livez(w http.ResponseWriter, _ *http.Request) {
	status := a.status()
	still := a.now().Sub(status.MovedAt)
	if still > livenessLimit {
		http.Error(w, fmt.Sprintf("the loop has not moved for %s", still.Truncate(time.Second)), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// startupz succeeds as soon as the process serves: a startup probe that waited
// for Postgres or Kafka would hold back the application beside a sidecar.
func (a *adminServer) startupz(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

// readyz is for people and load balancers. Retrying counts as ready, so that a
// Kafka outage takes nobody out of service.
func (a *adminServer) readyz(w http.ResponseWriter, _ *http.Request) {
	status := a.status()
	switch status.State {
	case cdc.StateStreaming, cdc.StateStandby, cdc.StateRetrying:
		fmt.Fprintln(w, status.State)
	default:
		text := string(status.State)
		if status.Cause != nil {
			text += ": " + status.Cause.Error()
		}
		http.Error(w, text, http.StatusServiceUnavailable)
	}
}

func (a *adminServer) statusJSON(w http.ResponseWriter, _ *http.Request) {
	status := a.status()
	writeJSON(w, http.StatusOK, newStatusReport(a.relay, a.slot, &status, a.now()))
}
