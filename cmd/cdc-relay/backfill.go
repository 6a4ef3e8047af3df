package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// backfillOptions are the flags of backfill.
type backfillOptions struct {
	rangeFlags
	ids     []string
	dryRun  bool
	rate    int
	timeout time.Duration
	addr    string
	tempDir string
}

// backfillReport is the output of `backfill -o json`, a contract.
type backfillReport struct {
	Run       string     `json:"run"` // the value of the header cdc-relay-backfill
	DryRun    bool       `json:"dry_run"`
	Rows      int64      `json:"rows"`      // looked at
	Missing   int64      `json:"missing"`   // of them
	Published int64      `json:"published"` // missing rows that are in Kafka now
	Pending   int64      `json:"pending"`   // rows that the relay may still publish itself; left to it
	IDs       []audit.ID `json:"ids"`       // of the missing rows, at most 1000
}

const (
	backfillBatch     = 500    // rows in one Kafka transaction
	backfillRound     = 200000 // ids kept at a time; what is more is found by the next round
	backfillShownRows = 1000
)

func (p *program) backfillCommand() *cobra.Command {
	var options backfillOptions
	cmd := &cobra.Command{
		Use:   "backfill",
		Short: "Publish rows of the outbox that are missing in Kafka; exit 0, or 3 when it cannot be proved which",
		Long: `Publish the rows of a range, or the given ones, that an audit finds missing.

Each record goes to the same topic, partition and key in the same format as the
relay would have sent it, at the time of producing, with the header
cdc-relay-backfill; it has no position header, because it has no place in the
order of the stream: it comes behind newer events of its key.

Only rows that the relay has passed for certain count as missing. What is in
Kafka, published or parked, is never published again: a backfill that was killed
is simply run again, and of two at the same time the older is fenced. It runs
beside the relay and does not disturb it.`,
		Example: `  cdc-relay backfill --config relay.yaml --since 24h --dry-run
  cdc-relay backfill --config relay.yaml --ids 0195d3f0-1234-7abc-8def-0123456789ab`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	options.add(cmd)
	cmd.Flags().StringSliceVar(&options.ids, "ids", nil, "only these event `IDS`")
	cmd.Flags().BoolVar(&options.dryRun, "dry-run", false, "list what is missing and publish nothing")
	cmd.Flags().IntVar(&options.rate, "rate", 1000, "rows a second; 0 is no limit")
	cmd.Flags().DurationVar(&options.timeout, "timeout", 30*time.Second, "how long to wait until the relay has recorded the rows")
	cmd.Flags().StringVar(&options.tempDir, "temp-dir", "", "`DIRECTORY` for what is sorted on disk; default the system's")
	cmd.Flags().StringVar(&options.addr, "addr", "", "admin `ADDRESS` of the relay; default admin.listen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := p.newBackfill(&options)
		if err != nil {
			return err
		}
		err = b.run(cmd.Context())
		if *output == outputJSON {
			err = errors.Join(err, p.printJSON(b.report))
		} else {
			b.report.print(p.stdout)
		}
		if err == nil && b.report.Pending > 0 {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}

// backfill is one run of the command.
type backfill struct {
	*auditor
	in       audit.Range
	ids      []audit.ID // sorted; empty: the whole range
	dryRun   bool
	rate     int
	tempDir  string
	progress *progressBar
	report   *backfillReport
}

func (p *program) newBackfill(options *backfillOptions) (*backfill, error) {
	in, err := options.parse(time.Now())
	if err != nil {
		return nil, err
	}
	if in == (audit.Range{}) == (len(options.ids) == 0) {
		return nil, &usageError{text: "say which rows: either --ids, or a range by --since or --from and --to"}
	}
	if options.rate < 0 || options.timeout < 0 {
		return nil, &usageError{text: "--rate and --timeout may not be negative"}
	}
	b := &backfill{in: in, dryRun: options.dryRun, rate: options.rate, tempDir: options.tempDir, progress: newProgressBar(p.stderr, isTerminal(p.stderr), 0)}
	for _, text := range options.ids {
		id, err := audit.ParseID([]byte(text))
		if err != nil {
			return nil, &usageError{text: "--ids: " + err.Error()}
		}
		b.ids = append(b.ids, id)
	}
	slices.SortFunc(b.ids, audit.ID.Compare)
	b.ids = slices.Compact(b.ids)
	c, err := p.config()
	if err != nil {
		return nil, err
	}
	b.auditor, err = newAuditor(c, options.addr, options.timeout)
	b.report = &backfillReport{Run: uuid.NewString(), DryRun: options.dryRun, IDs: []audit.ID{}}
	return b, err
}

// run repeats rounds until one finds nothing more. Fencing comes first: whatever
// an earlier backfill had begun is decided when the first round looks.
func (b *backfill) run(ctx context.Context) error {
	defer b.progress.clear()
	if b.dryRun {
		_, err := b.round(ctx, nil)
		return err
	}
	out, err := b.sink.OpenBackfill(ctx)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := b.running(ctx); err != nil {
		return err
	}
	for more := true; more && err == nil; {
		more, err = b.round(ctx, out)
	}
	return err
}

// round audits and publishes what it finds, as much as is kept at a time.
func (b *backfill) round(ctx context.Context, out *kafka.Backfiller) (more bool, err error) {
	scan, err := postgres.OpenOutboxScan(ctx, b.postgres)
	if err != nil {
		return false, err
	}
	defer scan.Close()
	cfg, err := b.config(scan, b.in)
	if err != nil {
		return false, err
	}
	if len(b.ids) > 0 {
		cfg.Rows, cfg.IDs, cfg.Since = &listedRows{OutboxScan: scan, ids: b.ids}, b.ids, b.recordsSince(b.ids[0])
	}
	var missing []audit.ID
	cfg.IgnoreContent, cfg.TempDir, cfg.Observe = true, b.tempDir, b.progress.show
	cfg.Missing = func(id audit.ID) error {
		if len(missing) < backfillRound {
			missing = append(missing, id)
		}
		if len(b.report.IDs) < backfillShownRows && !slices.Contains(b.report.IDs, id) {
			b.report.IDs = append(b.report.IDs, id)
		}
		return nil
	}
	report, err := audit.Run(ctx, cfg)
	if err != nil {
		return false, err
	}
	b.report.Rows, b.report.Pending = report.Rows, report.Pending
	b.report.Missing = max(b.report.Missing, b.report.Published+report.Missing)
	if out == nil {
		return false, nil
	}
	return report.Missing > int64(len(missing)), b.publish(ctx, scan, cfg.Router, out, missing)
}

// publish sends the missing rows, batch by batch, at the rate.
func (b *backfill) publish(ctx context.Context, scan *postgres.OutboxScan, router cdc.Router, out *kafka.Backfiller, missing []audit.ID) error {
	size := backfillBatch
	if b.rate > 0 {
		size = min(size, b.rate)
	}
	next := time.Now()
	for batch := range slices.Chunk(missing, size) {
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
		if b.rate > 0 {
			next = time.Now().Add(time.Duration(len(batch)) * time.Second / time.Duration(b.rate))
		}
		records, err := b.records(ctx, scan, router, batch)
		if err != nil {
			return err
		}
		if err := out.Publish(ctx, records); err != nil {
			return err
		}
		b.report.Published += int64(len(records))
		b.progress.show(audit.Progress{Phase: "publishing", Done: b.report.Published})
	}
	return nil
}

// records routes the rows as the relay would.
func (b *backfill) records(ctx context.Context, scan *postgres.OutboxScan, router cdc.Router, ids []audit.ID) ([]cdc.Record, error) {
	var records []cdc.Record
	err := scan.ByID(ctx, ids, func(row *audit.Row) error {
		kept := keepRow(row)
		record, err := router.Route(&kept)
		if err != nil {
			return err
		}
		record = record.Clone()
		markLate(&record, audit.HeaderBackfill, b.report.Run)
		records = append(records, record)
		return nil
	})
	return records, err
}

// listedRows are the given rows of a scan.
type listedRows struct {
	*postgres.OutboxScan
	ids []audit.ID
}

// Scan implements audit.Rows.
func (l *listedRows) Scan(ctx context.Context, _ audit.Range, each func(*audit.Row) error) error {
	for ids := range slices.Chunk(l.ids, backfillBatch) {
		if err := l.ByID(ctx, ids, each); err != nil {
			return err
		}
	}
	return nil
}

func (r *backfillReport) print(w io.Writer) {
	for _, id := range r.IDs {
		fmt.Fprintln(w, id)
	}
	if r.Missing > int64(len(r.IDs)) {
		fmt.Fprintf(w, "... and %d more\n", r.Missing-int64(len(r.IDs)))
	}
	fmt.Fprintf(w, "rows %d  missing %d  published %d\n", r.Rows, r.Missing, r.Published)
	if r.Pending > 0 {
		fmt.Fprintf(w, "%d rows without a record may still be on their way: they are left to the relay\n", r.Pending)
	}
	if r.Published > 0 {
		fmt.Fprintf(w, "marked with the header %s: %s\n", audit.HeaderBackfill, r.Run)
	}
}
