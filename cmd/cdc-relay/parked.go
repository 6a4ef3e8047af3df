package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// parkedRow is a row that was set aside, an element of `parked list -o json`, a
// contract.
type parkedRow struct {
	EventID    string    `json:"event_id"` // key of the parked record; empty where the row had none
	Position   string    `json:"position"` // of the row, as in its header
	Reason     string    `json:"reason"`
	Table      string    `json:"table"`
	CommitTime string    `json:"commit_time"`
	ParkedAt   time.Time `json:"parked_at"` // timestamp of the parked record
	Partition  int32     `json:"partition"`
	Offset     int64     `json:"offset"`
	// Columns and Payload are filled by show only.
	Columns map[string]*string `json:"columns,omitempty"` // all but the payload; null is SQL NULL
	Payload []byte             `json:"payload,omitempty"` // base64 in JSON
}

func (p *program) parkedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parked",
		Short: "List, show and publish rows that on_bad_row: park has set aside",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(p.parkedListCommand(), p.parkedShowCommand(), p.parkedRetryCommand())
	return cmd
}

func (p *program) parkedListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the parked rows, also those that were published since",
		Example: `  cdc-relay parked list --config relay.yaml`,
		Args:    cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		rows, err := readParked(cmd.Context(), c, false)
		if err != nil {
			return err
		}
		if *output == outputJSON {
			return p.printJSON(rows)
		}
		for i := range rows {
			fmt.Fprintf(p.stdout, "%-36s  %s  %s  %s\n", rows[i].EventID, rows[i].Position, rows[i].CommitTime, rows[i].Reason)
		}
		fmt.Fprintf(p.stdout, "%d rows in topic %s\n", len(rows), c.ParkedTopic)
		return nil
	}
	return cmd
}

func (p *program) parkedShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show EVENT_ID",
		Short:   "Show everything that is known of a parked row",
		Example: `  cdc-relay parked show --config relay.yaml 0195d3f0-1234-7abc-8def-0123456789ab`,
		Args:    cobra.ExactArgs(1),
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		rows, err := readParked(cmd.Context(), c, true)
		if err != nil {
			return err
		}
		for i := range rows {
			if rows[i].EventID != args[0] {
				continue
			}
			if *output == outputJSON {
				return p.printJSON(rows[i])
			}
			rows[i].print(p.stdout)
			return nil
		}
		return &cdc.Problem{What: fmt.Sprintf("topic %s has no row of event %s", c.ParkedTopic, args[0]), Why: "it was not parked, or retention has removed it", Fix: "cdc-relay parked list"}
	}
	return cmd
}

func (r *parkedRow) print(w io.Writer) {
	fmt.Fprintf(w, "event id     %s\nposition     %s\nreason       %s\ntable        %s\ncommitted    %s\nparked       %s/%d@%d\n",
		r.EventID, r.Position, r.Reason, r.Table, r.CommitTime, r.ParkedAt.UTC().Format(time.RFC3339), r.Partition, r.Offset)
	for name, value := range r.Columns {
		text := "NULL"
		if value != nil {
			text = *value
		}
		fmt.Fprintf(w, "column       %s = %s\n", name, text)
	}
	fmt.Fprintf(w, "payload      %s\n", r.Payload)
}

// readParked reads the whole parked topic; one that does not exist has none.
func readParked(ctx context.Context, c *loadedConfig, whole bool) ([]parkedRow, error) {
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		return nil, err
	}
	reader, topic := kafka.NewReader(sink), cdc.Topic(c.ParkedTopic)
	rows := []parkedRow{}
	n, err := reader.Partitions(ctx, topic)
	if err != nil || n == 0 {
		return rows, err
	}
	_, err = reader.Read(ctx, []cdc.Topic{topic}, time.Time{}, func(record *audit.Record) error {
		rows = append(rows, parkedFrom(record, whole))
		return nil
	})
	return rows, err
}

func parkedFrom(record *audit.Record, whole bool) parkedRow {
	row := parkedRow{
		EventID: string(record.Key), Position: string(headerValue(record, routing.HeaderPosition)), Reason: string(headerValue(record, routing.HeaderParkedReason)),
		Table: string(headerValue(record, routing.HeaderParkedTable)), CommitTime: string(headerValue(record, routing.HeaderCommitTime)),
		ParkedAt: record.Timestamp, Partition: record.Partition, Offset: record.Offset,
	}
	if !whole {
		return row
	}
	row.Payload, row.Columns = record.Value, map[string]*string{}
	for _, header := range record.Headers {
		name, isColumn := strings.CutPrefix(header.Key, routing.HeaderParkedColumnPrefix)
		switch {
		case isColumn && header.Value == nil:
			row.Columns[name] = nil
		case isColumn:
			row.Columns[name] = new(string(header.Value))
		}
	}
	return row
}

func (p *program) parkedRetryCommand() *cobra.Command {
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "retry [EVENT_ID...]",
		Short: "Publish parked rows that can become records now; exit 0, or 3 when some cannot",
		Long: `Publish parked rows that can become records now, after a change of routing, topic
or limits. The row is read from the outbox, with postgres.audit_dsn.

The record has the header cdc-relay-backfill and no position: it comes behind
newer events of its key. What is in its topic already is not published again, so
the command may be repeated, also after it was killed; of two at the same time
the older is fenced. It runs beside the relay and does not disturb it.`,
		Example: `  cdc-relay parked retry --config relay.yaml --all --dry-run
  cdc-relay parked retry --config relay.yaml 0195d3f0-1234-7abc-8def-0123456789ab`,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all parked rows")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would be published and publish nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return &usageError{text: "say which rows: either their event ids, or --all"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		r, err := newRetry(c, dryRun)
		if err != nil {
			return err
		}
		err = r.run(cmd.Context(), args)
		if *output == outputJSON {
			err = errors.Join(err, p.printJSON(r.report))
		} else {
			r.report.print(p.stdout)
		}
		if err == nil && r.report.Left > 0 {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}
