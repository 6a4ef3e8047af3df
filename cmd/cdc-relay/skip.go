package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func (p *program) skipCommand() *cobra.Command {
	var position string
	var confirm bool
	cmd := &cobra.Command{
		Use:   "skip --position POSITION",
		Short: "Pass over the bad row that the relay halts at",
		Long: `Pass over the bad row that the relay halts at, for good: it is recorded as
decided and never published by the relay.

The position is the one in the message of the halt. The command reads the stream
as the relay does and refuses unless the next row is the named one and cannot
become a record. Without --confirm it only shows the row.

Stop the relay first. What the command did is recorded in the position topic; it
may be repeated. A row that becomes publishable later, such as by a change of
routing, is published by cdc-relay backfill --ids.`,
		Example: `  cdc-relay skip --config relay.yaml --position 0001-00000000016b3600-00000003
  cdc-relay skip --config relay.yaml --position 0001-00000000016b3600-00000003 --confirm`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&position, "position", "", "`POSITION` of the row, as the halt names it")
	cmd.Flags().BoolVar(&confirm, "confirm", false, "do it instead of showing it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		named, err := cdc.ParsePositionHeader(position)
		if err != nil || named.Serial == 0 {
			return &usageError{text: fmt.Sprintf("--position %q: want the position that the halt names, such as 0001-00000000016b3600-00000003", position)}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		m, err := newCommander(c, p.stderr, "skip --position "+named.Header())
		if err != nil {
			return err
		}
		defer m.close()
		m.report.Confirmed = confirm
		err = m.hold(cmd.Context(), func(ctx context.Context, l *lease) error { return m.skip(ctx, l, named) })
		return p.end(m.report, *output, err)
	}
	return cmd
}

func (m *commander) skip(ctx context.Context, l *lease, named cdc.Position) error {
	resume, problem := cdc.Decide(l.kafka, l.source, cdc.ExactlyOnce)
	if problem != nil {
		return problem
	}
	record := l.kafka.Record
	if record.Position().Compare(named) == 0 {
		return nil // decided, by an earlier run of this command
	}
	where := newPlacer(l.publisher, l.kafka, l.kafka.Pins)
	waiting, records, why, err := m.waitingRows(ctx, l, cdc.NewNextRows(record, resume, l.source.Timeline, l.source.WALEnd), where, named)
	if err != nil {
		return err
	}
	decided, problem := cdc.Skip(record, named, waiting, why)
	if problem != nil {
		return problem
	}
	r, row := m.report, waiting[len(waiting)-1]
	r.Reason, r.Finding = cdc.HaltBadRow, why.What
	r.Does = append(r.Does, fmt.Sprintf("passes over row %s, event %s of transaction %d, committed %s, and goes on behind it", row.Header(), row.EventID, row.XID, row.CommitTime.UTC().Format(time.RFC3339Nano)))
	if len(records) > 0 {
		r.Does = append(r.Does, fmt.Sprintf("publishes the %d rows before it in its transaction, which is cut there: those behind it come in another Kafka transaction", len(records)))
	}
	r.note(commandEvent{EventID: string(row.EventID), Partition: -1, Offset: -1, Position: row.Header()})
	if !r.Confirmed {
		return nil
	}
	return m.commit(ctx, l.publisher, *decided, where.pinsToWrite(), record, records...)
}

// waitingRows reads the stream up to the named row, or the first behind it: the
// rows that are not decided, the records of those before the named one, and what
// is wrong with it.
func (m *commander) waitingRows(ctx context.Context, l *lease, next *cdc.NextRows, where *placer, named cdc.Position) (waiting []*cdc.Row, records []cdc.Record, why *cdc.Problem, err error) {
	bytes := 0
	for {
		row, err := nextRow(ctx, l, next)
		if row == nil || err != nil {
			return waiting, records, nil, err
		}
		waiting = append(waiting, row)
		if row.CommitLSN != named.CommitLSN || row.Compare(named) > 0 {
			return waiting, records, nil, nil // Skip refuses
		}
		record, why, err := m.judge(ctx, where, row)
		if err != nil || row.Compare(named) == 0 {
			return waiting, records, why, err
		}
		if why != nil { // another bad row comes first
			return waiting, records, why, nil
		}
		records = append(records, record)
		if bytes += record.Bytes(); len(records) > m.c.Batch.MaxRows || bytes > int(m.c.Batch.MaxBytes) {
			return nil, nil, nil, &cdc.Problem{
				What: fmt.Sprintf("more rows than one batch takes wait before %s in its transaction", named.Header()),
				Why:  "the relay publishes them before it halts", Fix: "start the relay until it halts at the row, with the same batch limits, then run the command again",
			}
		}
	}
}

// nextRow reads the stream up to the next row that is not decided; nil is that
// none waits.
func nextRow(ctx context.Context, l *lease, next *cdc.NextRows) (*cdc.Row, error) {
	l.letGo()
	deadline := time.Now().Add(genesisTimeout)
	var asked time.Time
	for {
		now := time.Now()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if now.After(deadline) {
			return nil, fmt.Errorf("read the stream: neither a row nor the WAL's end came within %s", genesisTimeout)
		}
		if now.Sub(asked) >= min(time.Second, l.stream.StatusInterval()) {
			asked = now
			if err := l.stream.Status(0, true); err != nil {
				return nil, err
			}
		}
		message, err := l.stream.Receive(now.Add(100 * time.Millisecond))
		if err != nil {
			return nil, err
		}
		if message == nil {
			continue
		}
		row, done, problem := next.Take(message)
		if problem != nil {
			return nil, problem
		}
		if row != nil || done {
			return row, nil
		}
	}
}

// judge routes and places a row as the relay would, or says what is wrong with it.
func (m *commander) judge(ctx context.Context, where *placer, row *cdc.Row) (record cdc.Record, why *cdc.Problem, err error) {
	record, err = m.router.Route(row)
	if err != nil {
		return record, cdc.AsProblem(err), nil
	}
	record = record.Clone()
	record.Position = row.Position
	if time.Since(record.Timestamp) > time.Hour {
		record.Timestamp = time.Time{} // that of producing: an old one would meet retention at once
	}
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	record, err = where.place(ctx, row, record)
	if problem := cdc.AsProblem(err); problem != nil && problem.Reason == cdc.HaltBadRow {
		return record, problem, nil
	}
	return record, nil, err
}
