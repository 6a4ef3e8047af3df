package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// auditOptions are the flags of audit and, in part, of backfill.
type auditOptions struct {
	rangeFlags
	timeout       time.Duration
	tolerance     time.Duration
	ignoreContent bool
	tempDir       string
	addr          string
}

func (p *program) auditCommand() *cobra.Command {
	var options auditOptions
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare rows of the outbox with the topics; exit 0 clean, 4 a difference, 3 not provable",
		Long: `Compare the rows of the outbox with the records in Kafka: missing, duplicate, out
of order, in the wrong topic or partition, changed, and records without a row.

Reads the rows in one snapshot with postgres.audit_dsn (a role that may SELECT
the outbox), waits until the relay has recorded everything in it, and reads the
topics as a read_committed consumer to their ends. Rows are known by the records'
event ids, which have to be UUIDs. --since goes by the time in a UUIDv7.

The order per key is judged by the server's commit timestamps, where
track_commit_timestamp is on, and by command ids within a transaction; the report
tells how many pairs could be judged. Memory is bounded; about 200 bytes a row
are needed in --temp-dir.

Exit code 0 means that nothing is wrong, 4 that something is, 3 that rows without
a record may still be on their way, because the relay did not record the snapshot
within --timeout.`,
		Example: `  cdc-relay audit --config relay.yaml --since 24h
  cdc-relay audit --config relay.yaml --since 2026-03-01T00:00:00Z -o json`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	options.add(cmd)
	cmd.Flags().DurationVar(&options.timeout, "timeout", 30*time.Second, "how long to wait until the relay has recorded the snapshot")
	cmd.Flags().DurationVar(&options.tolerance, "order-tolerance", 100*time.Millisecond, "by how much commit timestamps have to differ to prove an order; 0 is exact where writers of one key lock it")
	cmd.Flags().BoolVar(&options.ignoreContent, "ignore-content", false, "do not compare keys, values and headers, as after a change of routing")
	cmd.Flags().StringVar(&options.tempDir, "temp-dir", "", "`DIRECTORY` for what is sorted on disk; default the system's")
	cmd.Flags().StringVar(&options.addr, "addr", "", "admin `ADDRESS` of the relay; default admin.listen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		in, err := options.parse(time.Now())
		if err != nil {
			return err
		}
		if options.timeout < 0 || options.tolerance < 0 {
			return &usageError{text: "--timeout and --order-tolerance may not be negative"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		report, err := p.audit(cmd.Context(), c, in, &options)
		if err != nil {
			return err
		}
		if *output == outputJSON {
			err = p.printJSON(report)
		} else {
			printAudit(p.stdout, report)
		}
		return errors.Join(err, auditVerdict(report))
	}
	return cmd
}

// auditVerdict is the exit code of a finished audit.
func auditVerdict(report *audit.Report) error {
	switch {
	case report.Differences() > 0:
		return errDifferent
	case report.Pending > 0:
		return errUnhealthy
	}
	return nil
}

func (p *program) audit(ctx context.Context, c *loadedConfig, in audit.Range, options *auditOptions) (*audit.Report, error) {
	a, err := newAuditor(c, options.addr, options.timeout)
	if err != nil {
		return nil, err
	}
	scan, err := postgres.OpenOutboxScan(ctx, a.postgres)
	if err != nil {
		return nil, err
	}
	defer scan.Close()
	rows, err := scan.Estimate(ctx, in)
	if err != nil {
		return nil, err
	}
	bar := newProgressBar(p.stderr, isTerminal(p.stderr), rows)
	defer bar.clear()
	cfg, err := a.config(scan, in)
	if err != nil {
		return nil, err
	}
	cfg.OrderTolerance, cfg.IgnoreContent, cfg.TempDir, cfg.Observe = options.tolerance, options.ignoreContent, options.tempDir, bar.show
	return audit.Run(ctx, cfg)
}

// auditor has the parts that audit and backfill share.
type auditor struct {
	c        *loadedConfig
	postgres postgres.Config
	sink     *kafka.Sink
	reader   *kafka.Reader
	addr     string
	timeout  time.Duration
}

func newAuditor(c *loadedConfig, addr string, timeout time.Duration) (*auditor, error) {
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		return nil, err
	}
	return &auditor{
		c: c, postgres: auditPostgresConfig(c), sink: sink, reader: kafka.NewReader(sink),
		addr: adminAddress(c, addr), timeout: timeout,
	}, nil
}

// auditPostgresConfig is the Postgres side with the role that may read the table.
func auditPostgresConfig(c *loadedConfig) postgres.Config {
	cfg := postgresConfig(c, nil, nil)
	if c.Postgres.AuditDSN != "" || c.Postgres.AuditDSNFile != "" {
		cfg.DSN = secretReader("postgres.audit_dsn_file", c.Postgres.AuditDSN, c.Postgres.AuditDSNFile)
	}
	return cfg
}

// config is an audit of the scan's snapshot with a new router.
func (a *auditor) config(scan *postgres.OutboxScan, in audit.Range) (audit.Config, error) {
	router, err := newRouter(a.c)
	if err != nil {
		return audit.Config{}, err
	}
	cfg := audit.Config{
		Rows: scan, Records: a.reader, Router: router, Range: in, IDHeader: "ce_id", ParkedTopic: cdc.Topic(a.c.ParkedTopic),
		Topics: exactTopics(a.c), Since: a.recordsSince(in.From),
		Published: func(ctx context.Context) (bool, error) { return a.published(ctx, scan.InsertLSN()) },
	}
	if a.c.Routing.Format == "raw" || a.c.Routing.Format == "debezium" {
		cfg.IDHeader = "id"
	} else {
		cfg.Source = a.c.Routing.Source
	}
	return cfg, nil
}

// recordsMargin is by how much the clocks of those who make ids and of the
// server, whose time records carry, may differ.
const recordsMargin = time.Hour

// recordsSince is a time before the timestamp of every record of the range; zero
// where nothing bounds it.
func (a *auditor) recordsSince(from audit.ID) time.Time {
	_, ownTime := a.c.Routing.Debezium["table.field.event.timestamp"]
	if made := from.Made(); !ownTime && !made.IsZero() {
		return made.Add(-recordsMargin)
	}
	return time.Time{}
}

func printAudit(w io.Writer, r *audit.Report) {
	fmt.Fprintf(w, "rows %d  found %d  missing %d  duplicate %d  out of order %d\n", r.Rows, r.Found, r.Missing, r.Duplicate, r.OutOfOrder+r.Order.PositionsBackwards)
	for _, other := range []struct {
		count int64
		text  string
	}{
		{r.WrongPlace, "records are in another topic or partition than their row routes to"},
		{r.Changed, "records differ from what their row routes to"},
		{r.Phantom, "records have no row"},
		{r.Order.PositionsBackwards, "records have a position that is not behind the one before them"},
		{r.Pending, "rows without a record may still be on their way"},
		{r.Parked, "rows are parked"},
		{r.Unroutable, "rows cannot become a record and are not parked"},
		{r.Expired, "rows are older than what retention has left"},
		{r.Backfilled, "records were backfilled or resynced"},
		{r.Later, "records are of rows that came after the snapshot"},
		{r.Pruned, "records have no row any more"},
		{r.Foreign, "records of the topics are of somebody else"},
	} {
		if other.count > 0 {
			fmt.Fprintf(w, "%d %s\n", other.count, other.text)
		}
	}
	if r.Order.CommitTimes {
		fmt.Fprintf(w, "order per key: %d pairs judged by commit timestamps and command ids\n", r.Order.PairsChecked)
	} else {
		fmt.Fprintf(w, "order per key: %d pairs within transactions judged, %d not: track_commit_timestamp is off\n", r.Order.PairsChecked, r.Order.PairsUnknown)
	}
	fmt.Fprintf(w, "order of the relay's own positions: %d records checked\n", r.Order.PositionsChecked)
	for _, e := range r.Examples {
		fmt.Fprintf(w, "  %-18s %s", e.Kind, e.EventID)
		if e.Topic != "" {
			fmt.Fprintf(w, "  %s/%d", e.Topic, e.Partition)
		}
		if e.Offset >= 0 && e.Topic != "" {
			fmt.Fprintf(w, "@%d", e.Offset)
		}
		if e.Text != "" {
			fmt.Fprintf(w, "  %s", e.Text)
		}
		fmt.Fprintln(w)
	}
	switch {
	case r.Differences() > 0:
		fmt.Fprintf(w, "DIFFERENT: %d differences (%.1f s)\n", r.Differences(), r.Seconds)
	case r.Pending > 0:
		fmt.Fprintf(w, "NOT PROVED: the relay did not record the snapshot in time (%.1f s)\n", r.Seconds)
	default:
		fmt.Fprintf(w, "CLEAN (%.1f s)\n", r.Seconds)
	}
}
