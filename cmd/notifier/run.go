package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cdc-relay/cdc-relay/notifier"
)

func (p *program) runCommand() *cobra.Command {
	migrate := false
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Post events until stopped",
		Long: `Post events until stopped. Kafka, Postgres and Slack may be away: it waits for
them, and records wait in Kafka.`,
		Example: "  notifier run --config notifier.yaml",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&migrate, "migrate", false, "make or update the inbox table first, as migrate does")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		return p.run(cmd.Context(), c, migrate)
	}
	return cmd
}

func (p *program) run(ctx context.Context, c *Config, migrate bool) error {
	logger := newLogger(&c.Log, p.stderr)
	pool, err := c.pool(ctx)
	if err != nil {
		return usageError{err}
	}
	defer pool.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n, err := c.notifier(pool, registry, logger)
	if err != nil {
		return usageError{err}
	}
	if migrate {
		if err := notifier.Migrate(ctx, pool); err != nil {
			return err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Admin.Listen)
	if err != nil {
		return &notifier.Problem{What: "the admin port cannot listen", Fix: "set admin.listen to a free address", Err: fmt.Errorf("listen: %w", err)}
	}
	admin := newAdminServer(n, registry, logger)
	logger.Info("notifier starts", "version", readVersion().Version, "address", listener.Addr().String())
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	var served sync.WaitGroup
	served.Go(func() { admin.run(adminCtx, listener) })
	err = n.Run(ctx)
	stopAdmin() // after Run, so that probes answer while it drains
	served.Wait()
	if err == nil {
		logger.Info("notifier stopped in good order")
	}
	return err
}

func (p *program) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Make the inbox table or bring it up to date",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				if err := notifier.Migrate(cmd.Context(), pool); err != nil {
					return err
				}
				fmt.Fprintln(p.stdout, "the inbox is up to date")
				return nil
			})
		},
	}
}

// newLogger logs to w: text on a terminal, JSON otherwise.
func newLogger(c *LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic("log level passed validation: " + c.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	f, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	if c.Format == "json" || c.Format == "auto" && !terminal {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
