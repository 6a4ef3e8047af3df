package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

func (p *program) outboxCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "outbox",
		Short: "Keep the outbox table small",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(p.pruneCommand())
	return cmd
}

func (p *program) pruneCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Make the days ahead, and remove old rows that are in Kafka; exit 0, or 3 when some had to stay",
		Long: `Make the partitions of the days ahead, and remove what is older than --keep.

Days of a partitioned outbox are dropped: the day is locked against inserts for
less than a second, the slot has to confirm the WAL behind it, then it goes. Rows
of the DEFAULT partition and of a table without partitions are deleted, some
blocks at a time, below a transaction id up to which everything is confirmed.
Age never proves that a row is in Kafka; a row that is not stays, also one that
was committed late into an old day.

Connects with postgres.admin_dsn as the table's owner (role outbox_maintainer).
Run it once a day, such as from cron. Nothing is removed while a resync is
unfinished. Exit code 3 means that something old had to stay for now.`,
		Example: `  cdc-relay outbox prune --config relay.yaml --keep 168h --dry-run`,
		Args:    cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	var in postgres.PruneConfig
	cmd.Flags().DurationVar(&in.Keep, "keep", 7*24*time.Hour, "how long rows stay")
	cmd.Flags().IntVar(&in.MakeDays, "make-days", 14, "partitions to have ahead, today's included; 0 makes none")
	cmd.Flags().DurationVar(&in.Wait, "wait", 30*time.Second, "how long to try for each day")
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "show what would go")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if in.Keep <= 0 || in.Wait < 0 || in.MakeDays < 0 {
			return &usageError{text: "--keep has to be positive, --wait and --make-days not negative"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		report, err := prune(cmd.Context(), c, in)
		if report != nil {
			if *output == outputJSON {
				if printErr := p.printJSON(report); err == nil {
					err = printErr
				}
			} else {
				printPrune(p.stdout, report)
			}
		}
		if err == nil && report.AnyKept() {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}

func prune(ctx context.Context, c *loadedConfig, in postgres.PruneConfig) (*postgres.PruneReport, error) {
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		return nil, err
	}
	admin, err := postgres.NewAdmin(adminPostgresConfig(c, nil, nil))
	if err != nil {
		return nil, err
	}
	in.Safe = func(ctx context.Context) error { return notResyncing(ctx, sink) }
	in.CreatedAt = "created_at"
	if name := c.Postgres.Columns["created_at"]; name != "" {
		in.CreatedAt = name
	}
	return admin.Prune(ctx, in)
}

// notResyncing says whether the slot's word counts: the slot of a resync stands
// before rows that are still to be published.
func notResyncing(ctx context.Context, sink *kafka.Sink) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	facts, err := sink.Advise(ctx)
	if err != nil {
		return err
	}
	if facts.Record != nil && facts.Record.State != cdc.RecordRunning {
		return &cdc.Problem{
			What: fmt.Sprintf("the relay is %s: nothing is pruned", facts.Record.State),
			Why:  "its slot may stand behind rows that are not in Kafka yet",
			Fix:  "let it finish, then prune",
		}
	}
	return nil
}

func printPrune(w io.Writer, r *postgres.PruneReport) {
	verb := "dropped"
	if r.DryRun {
		verb = "would drop"
	}
	fmt.Fprintf(w, "older than %s may go; %d days made ahead\n", r.Cutoff.Format(time.RFC3339), r.MadeDays)
	for _, day := range r.Days {
		switch {
		case day.Dropped || r.DryRun:
			fmt.Fprintf(w, "%-10s %s (%.1f MiB)\n", verb, day.Partition, mebibytes(day.Bytes))
		default:
			fmt.Fprintf(w, "%-10s %s after %d attempts: %s\n", "kept", day.Partition, day.Attempts, day.Kept)
		}
	}
	switch {
	case r.Kept != "":
		fmt.Fprintf(w, "%-10s old rows of %s: %s\n", "kept", r.Table, r.Kept)
	case r.Table != "":
		fmt.Fprintf(w, "%s: %d old rows%s\n", r.Table, r.DeletedRows, map[bool]string{true: " would be deleted", false: fmt.Sprintf(" deleted by %d statements, the longest %.3f s", r.Deletes, r.LongestDelete)}[r.DryRun])
	}
	fmt.Fprintf(w, "outbox before %.1f MiB, after %.1f MiB", mebibytes(r.BytesBefore), mebibytes(r.BytesAfter))
	if r.DeletedRows > 0 && !r.DryRun {
		fmt.Fprint(w, " (vacuum makes the space of deleted rows usable again)")
	}
	fmt.Fprintf(w, "\nlongest lock of a day %.3f s, of the whole outbox %.3f s\n", r.LongestLock, r.LongestExclusive)
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
