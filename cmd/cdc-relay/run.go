package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/metrics"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// runOptions are the flags of run.
type runOptions struct {
	once   bool
	init   bool
	stayUp bool
}

func (p *program) runCommand() *cobra.Command {
	var options runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Relay outbox rows to Kafka until stopped",
		Long: `Relay outbox rows to Kafka until stopped.

Starts also while Postgres or Kafka is away and keeps trying. When another
replica holds the slot, this one waits as a standby. A finding that needs a
person ends it with exit code 5; slot and transactional ids are released.`,
		Example: `  cdc-relay run --config relay.yaml
  cdc-relay run --config relay.yaml --once`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	cmd.Flags().BoolVar(&options.once, "once", false, "publish what is committed now, then end")
	cmd.Flags().BoolVar(&options.init, "init", false, "do init --apply first when neither slot nor position record exists")
	cmd.Flags().BoolVar(&options.stayUp, "stay-up", false, "after a halt keep the admin port up in state halted until stopped; the exit code stays 5")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		if options.init && cdc.Mode(c.Delivery) == cdc.AtLeastOnce {
			return &usageError{text: "--init does not go with delivery: at-least-once, where nothing tells a new relay from one whose slot was lost; run cdc-relay init --apply once"}
		}
		stayLean()
		return p.run(cmd.Context(), c, options)
	}
	return cmd
}

// stayLean trades a few percent of processor time for memory: the collector
// runs when the heap has grown by half, unless GOGC says otherwise. The heap is
// two batches and what Kafka's client makes of one; garbage is the rest of it.
func stayLean() {
	const percent = 50
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

func (p *program) run(ctx context.Context, c *loadedConfig, options runOptions) error {
	logger := newLogger(&c.Log, p.stderr).With(keyRelay, c.Relay)
	router, err := newRouter(c)
	if err != nil {
		return err
	}
	source, err := postgres.New(postgresConfig(c, router.RequiredColumns(), logger))
	if err != nil {
		return err
	}
	defer source.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	kafkaCfg := kafkaConfig(c, logger)
	kafkaCfg.Hooks = []kgo.Hook{kprom.NewMetrics("cdc_relay_kafka", kprom.Registerer(registry))}
	sink, err := kafka.New(kafkaCfg)
	if err != nil {
		return err
	}
	monitor, err := postgres.NewMonitor(postgresConfig(c, nil, logger))
	if err != nil {
		return err
	}
	defer monitor.Close()
	relay := &relayParts{source: source, sink: sink, router: router, monitor: monitor, registry: registry}
	return relay.run(ctx, c, options, logger)
}

// relayParts are the adapters of one process.
type relayParts struct {
	source   cdc.Source
	sink     cdc.Sink
	router   *routing.Router
	monitor  *postgres.Monitor
	registry *prometheus.Registry
	runner   *cdc.Runner
	// beforeRun is why the runner does not run yet; nil once it does.
	beforeRun atomic.Pointer[cdc.Status]
}

// status is the runner's, and before it runs what init is waiting for.
func (r *relayParts) status() cdc.Status {
	before := r.beforeRun.Load()
	if before == nil {
		return r.runner.Status()
	}
	status := *before
	status.MovedAt = time.Now()
	return status
}

// publishMargin is how much longer than its timeout a Kafka transaction may
// take before this side gives up on it: past it the broker has decided.
const publishMargin = 5 * time.Second

func (r *relayParts) run(ctx context.Context, c *loadedConfig, options runOptions, logger *slog.Logger) error {
	build := readVersion()
	observer, err := metrics.New(metrics.Config{
		Registerer: r.registry, Slot: c.Postgres.Slot,
		Status:    r.status,
		SlotStats: r.monitor.SlotStats,
		Version:   build.Version, Revision: build.Revision,
	})
	if err != nil {
		return err
	}
	r.runner, err = cdc.New(cdc.Config{
		Source: r.source, Sink: r.sink, Router: r.router, Park: parker(c, r.router), Observer: observer, Logger: logger,
		Mode: cdc.Mode(c.Delivery), Identity: identity(c),
		Limits: cdc.BatchLimits{MaxRows: c.Batch.MaxRows, MaxBytes: int(c.Batch.MaxBytes), MaxPartitions: c.Batch.MaxPartitions},
		Once:   options.once, StayUp: options.stayUp, DrainTimeout: c.DrainTimeout,
		PublishTimeout: c.Kafka.TransactionTimeout + publishMargin,
	})
	if err != nil {
		return err
	}
	admin, err := newAdminServer(ctx, adminConfig{
		Listen: c.Admin.Listen, Pprof: c.Admin.Pprof, Relay: c.Relay, Slot: c.Postgres.Slot,
		Status: r.status, Gatherer: r.registry, Logger: logger,
	})
	if err != nil {
		return err
	}
	logger.Info("cdc-relay starts", keyVersion, build.Version, keySlot, c.Postgres.Slot, keyDelivery, c.Delivery, keyAddress, admin.address())
	relay := r.runner.Run
	if options.init {
		r.waitFor(cdc.StateStarting, nil)
		relay = func(ctx context.Context) error { return r.initThenRun(ctx, c, options.stayUp, logger) }
	}
	return r.runBoth(ctx, admin, relay, logger)
}

// runBoth runs relay and admin server until the relay ends. The admin port
// outlives it, so that probes answer while it drains.
func (r *relayParts) runBoth(ctx context.Context, admin *adminServer, relay func(context.Context) error, logger *slog.Logger) error {
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	var served sync.WaitGroup
	served.Go(func() { admin.Run(adminCtx) })
	err := relay(ctx)
	stopAdmin()
	served.Wait()
	if err == nil {
		logger.Info("cdc-relay stopped in good order")
	}
	return err
}

// waitFor shows a state while the runner does not run yet.
func (r *relayParts) waitFor(state cdc.State, cause error) {
	// Only exactly-once comes here: --init does not go with the other mode.
	r.beforeRun.Store(&cdc.Status{State: state, Mode: cdc.ExactlyOnce, Since: time.Now(), Cause: cdc.AsProblem(cause)})
}

// initThenRun makes a new relay's objects first, or finishes what an earlier
// init began, and then runs. A stop while it waits for a server is orderly.
func (r *relayParts) initThenRun(ctx context.Context, c *loadedConfig, stayUp bool, logger *slog.Logger) error {
	if err := r.init(ctx, c, logger); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil
		}
		if stayUp {
			r.waitFor(cdc.StateHalted, err)
			logger.Error("halted", keyReason, err)
			<-ctx.Done()
		}
		return err
	}
	r.beforeRun.Store(nil)
	return r.runner.Run(ctx)
}

// init repeats until nothing is left to do: servers may be away, and a replica
// that starts at the same moment may be faster.
func (r *relayParts) init(ctx context.Context, c *loadedConfig, logger *slog.Logger) error {
	g, err := newGenesis(c, logger, initOptions{apply: true})
	if err != nil {
		return err
	}
	defer g.close()
	told := ""
	for {
		done, err := g.attempt(ctx, func(s step) { logger.Info("init", keyStep, s.Name, keyOutcome, s.Outcome) })
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if slices.ContainsFunc(unjoin(err), needsPerson) {
			return err
		}
		if text := err.Error(); text != told {
			logger.Warn("init waits", keyReason, text)
			told = text
			r.waitFor(cdc.StateRetrying, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(initPause):
		}
	}
}

// initPause is the time between two attempts of run --init.
const initPause = 2 * time.Second
