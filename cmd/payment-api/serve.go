package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/payment"
)

// sweepInterval is how often expired Idempotency-Keys are deleted.
const sweepInterval = time.Hour

func (p *program) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and the admin port until stopped (the default)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.settings.load(cmd.Flags(), p.env, p.stderr); err != nil {
				return err
			}
			return p.serve(cmd.Context())
		},
	}
}

// serve builds the parts and runs them. It starts while Postgres is away; then
// /readyz fails and requests are answered 503.
func (p *program) serve(ctx context.Context) error {
	s := &p.settings
	logger := s.logger(p.stderr)
	keys, err := s.apiKeys()
	if err != nil {
		return err
	}
	relay, err := s.relay()
	if err != nil {
		return err
	}
	if relay != nil {
		defer relay.Close()
	}
	pool, err := s.pool(ctx, logger)
	if err != nil {
		return err
	}
	defer pool.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	service, err := payment.New(payment.Config{
		Pool: pool, LockTimeout: s.lockTimeout, RequestTimeout: s.requestTimeout, KeyRetention: s.keyRetention, ReservationTTL: s.reservationTTL,
		Registerer: registry, Logger: logger,
	})
	if err != nil {
		return err
	}
	handler, err := payment.NewHandler(payment.HandlerConfig{Service: service, Relay: relay, Keys: keys, MaxInFlight: s.maxInFlight})
	if err != nil {
		return err
	}
	stopping := &atomic.Bool{}
	api, err := listen(ctx, "listen", s.listen, handler, s.requestTimeout, logger)
	if err != nil {
		return err
	}
	admin, err := listen(ctx, "admin-listen", s.adminListen, adminHandler(service, registry, stopping), s.requestTimeout, logger)
	if err != nil {
		return errors.Join(err, api.listener.Close())
	}
	logger.Info("payment-api serves", keyVersion, readVersion().Version, keyAddress, api.address(), keyAdminAddress, admin.address(), keyAPIKeys, keys != nil)
	if err := service.Ready(ctx); err != nil && ctx.Err() == nil {
		logger.Warn("the service is not ready", keyReason, err)
	}
	return run(ctx, s, service, api, admin, stopping)
}

// run serves until ctx ends or a server fails. Order of the stop:
//
//  1. /readyz fails; the API still serves for the drain delay
//  2. the API takes no new connections and ends what is in flight
//  3. the sweep and the admin port end
func run(ctx context.Context, s *settings, service *payment.Service, api, admin *server, stopping *atomic.Bool) error {
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	group, failed := errgroup.WithContext(rest)
	signalled, stopAPI := context.WithCancel(ctx)
	defer stopAPI()
	defer context.AfterFunc(failed, stopAPI)()
	group.Go(func() error { return service.RunSweep(failed, sweepInterval) })
	group.Go(func() error { return admin.run(failed, 0, time.Second) })
	group.Go(func() error {
		defer stopRest()
		defer context.AfterFunc(signalled, func() { stopping.Store(true) })()
		return api.run(signalled, s.drainDelay, s.drainTimeout)
	})
	return group.Wait()
}

// pool connects lazily.
func (s *settings) pool(ctx context.Context, logger *slog.Logger) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(s.dsn)
	if err != nil {
		return nil, usageError{errors.New("the connection string cannot be read")}
	}
	cfg.MaxConns = s.maxConnections
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "payment-api/" + readVersion().Version
	}
	host := cfg.ConnConfig.Host
	ip := net.ParseIP(host)
	if local := len(host) > 0 && host[0] == '/' || host == "localhost" || ip != nil && ip.IsLoopback(); !local && cfg.ConnConfig.TLSConfig == nil {
		logger.Warn("the connection to Postgres is not encrypted: set sslmode=verify-full", keyAddress, host)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("make the connection pool: %w", err)
	}
	return pool, nil
}

// server is a listener with its HTTP server.
type server struct {
	listener net.Listener
	http     *http.Server
}

// listen takes the address at once, so that a taken port is an error at start.
// Every phase of a connection has its time: nobody holds one for nothing.
func listen(ctx context.Context, setting, address string, handler http.Handler, requestTimeout time.Duration, logger *slog.Logger) (*server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", setting, err)
	}
	return &server{listener: listener, http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15*time.Second + requestTimeout, // from the end of the header: body, work, answer
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}, nil
}

// address is where the server really listens; differs from the setting for
// port 0.
func (s *server) address() string { return s.listener.Addr().String() }

// run serves until ctx ends, and for delay after that; then requests in flight
// have until timeout. What is not answered by then is cut, which rolls it back.
func (s *server) run(ctx context.Context, delay, timeout time.Duration) error {
	requests, cutRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer cutRequests()
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	served := make(chan error, 1) // the sender never waits
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.address(), err)
	case <-ctx.Done():
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.address(), err)
	case <-time.After(delay):
	}
	deadline, cancel := context.WithTimeout(requests, timeout)
	defer cancel()
	err := s.http.Shutdown(deadline)
	if err != nil {
		cutRequests()
		err = errors.Join(fmt.Errorf("stop %s: requests in flight after %s are cut: %w", s.address(), timeout, err), s.http.Close())
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve %s: %w", s.address(), ended))
	}
	return err
}
