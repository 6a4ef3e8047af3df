package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// resyncOptions are the flags of resync.
type resyncOptions struct {
	assumed         time.Time // rows made before it are taken for published
	complete        bool
	leaveUnroutable bool
	whole           bool // the published floor is not relied on
}

func (p *program) resyncCommand() *cobra.Command {
	var options resyncOptions
	var before string
	var confirm bool
	cmd := &cobra.Command{
		Use:   "resync",
		Short: "Make the slot anew and publish what is missing in Kafka",
		Long: `Go on where neither slot nor position tell any more what is in Kafka: drop the
slot, make it anew, compare the outbox as of that moment with the topics, publish
what is missing, and stream what is committed from then on.

No row is lost and none is published twice, also when the command is killed and
run again. The order is not restored: the missing rows come in the order of
created_at and id, behind what their keys have already, with the header
cdc-relay-resync and without a position. Writers may go on meanwhile.

Reads the outbox with postgres.audit_dsn and the topics from the oldest row on,
without the rows of which the position record proves that they are in Kafka.
Where retention has removed records that would be needed, it refuses. Without
--confirm it only shows what it would publish. Stop the relay first.`,
		Example: `  cdc-relay resync --config relay.yaml
  cdc-relay resync --config relay.yaml --confirm`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&confirm, "confirm", false, "do it instead of showing it")
	cmd.Flags().StringVar(&before, "assume-published-before", "", "take rows whose id (UUIDv7) was made before a `TIME` for published: an age such as 24h, or RFC 3339; loses those that were not")
	cmd.Flags().BoolVar(&options.complete, "assume-complete", false, "publish what is not found although retention has removed records; repeats what was removed. With --assume-published-before only rows made since then")
	cmd.Flags().BoolVar(&options.leaveUnroutable, "leave-unroutable", false, "pass over rows that cannot become a record")
	cmd.Flags().BoolVar(&options.whole, "compare-all", false, "compare every row, also those of which the position record proves that they are in Kafka")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if before != "" {
			at, err := parseSince(before, time.Now())
			if err != nil {
				return &usageError{text: fmt.Sprintf("--assume-published-before: %q is neither an age such as 24h nor a past time such as 2026-03-01T00:00:00Z", before)}
			}
			options.assumed = at
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		m, err := newCommander(c, p.stderr, "resync")
		if err != nil {
			return err
		}
		defer m.close()
		m.report.Confirmed = confirm
		bar := newProgressBar(p.stderr, isTerminal(p.stderr), 0)
		err = (&resync{commander: m, options: &options, observe: bar.show}).run(cmd.Context())
		bar.clear()
		return p.end(m.report, *output, err)
	}
	return cmd
}

// resync is one run of the command, or of adopt --new-system.
type resync struct {
	*commander
	options *resyncOptions
	// publishesNothing refuses where a row is missing in Kafka.
	publishesNothing bool
	observe          func(audit.Progress)

	admin *postgres.Admin
	facts cdc.SourceFacts // of before the slot is dropped
	*placer
	generation uint16 // the highest of any position header in Kafka
	mark       string // the value of the header of what it publishes
	floor      *cdc.PublishedFloor
	witness    *cdc.LastRow // of floor
}

func (r *resync) run(ctx context.Context) error {
	var err error
	if r.admin, err = postgres.NewAdmin(postgresConfig(r.c, r.router.RequiredColumns(), nil)); err != nil {
		return err
	}
	worthless, err := r.look(ctx)
	if err != nil {
		return err
	}
	if !r.report.Confirmed || !worthless {
		if err := r.preview(ctx); err != nil || !r.report.Confirmed {
			return err
		}
	}
	return r.apply(ctx)
}

// look finds what the command ends. A slot that can be had is held for it, so
// that nobody streams from it. It says whether the slot is worthless anyway: then
// nothing is lost by going on, and refusing later.
func (r *resync) look(ctx context.Context) (worthless bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	if r.facts, err = r.source.Inspect(bounded); err != nil {
		return false, err
	}
	advised, err := r.sink.Advise(bounded)
	if err != nil {
		return false, err
	}
	source := r.facts
	finding := cdc.DecideIdentity(advised, r.facts, cdc.ExactlyOnce)
	if finding == nil && r.facts.Slot != nil {
		err = r.hold(ctx, func(_ context.Context, l *lease) error {
			_, finding = cdc.Decide(l.kafka, l.source, cdc.ExactlyOnce)
			advised, source = l.kafka, l.source
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	begun, _ := cdc.BeginResync(advised, source, 0)
	r.relyOn(&begun, source)
	r.report.Finding = "nothing that a start would halt at before it reads the stream"
	if finding != nil {
		r.report.Reason, r.report.Finding = finding.Reason, finding.What
	}
	if advised.Record != nil && advised.Record.State == cdc.RecordInitialising {
		return false, finding
	}
	slot, record := r.facts.Slot, advised.Record
	return record != nil && !r.publishesNothing && (slot == nil || slot.Lost() || record.State == cdc.RecordResyncing), nil
}

// preview compares without having changed anything, and refuses what apply would
// refuse when the slot is gone.
func (r *resync) preview(ctx context.Context) error {
	scan, err := postgres.OpenOutboxScan(ctx, auditPostgresConfig(r.c))
	if err != nil {
		return err
	}
	defer scan.Close()
	found, err := r.compare(ctx, scan)
	if err != nil {
		return err
	}
	if problem := r.refusal(found); problem != nil {
		return problem
	}
	r.generation = found.generation
	r.say(found)
	return nil
}

// relyOn takes the floor of the record with which the resync begins, if it may
// still be true of the server.
func (r *resync) relyOn(begun *cdc.PositionRecord, source cdc.SourceFacts) {
	r.floor, r.witness = begun.StandingFloor(source), begun.LastRow
	if r.options.whole {
		r.floor = nil
	}
}

func (r *resync) refusal(found *comparison) *cdc.Problem {
	if problem := found.refusal(r.options); problem != nil {
		return problem
	}
	if r.publishesNothing && len(found.missing) > 0 {
		return &cdc.Problem{
			Treatment: cdc.Halt, Reason: cdc.HaltOtherDatabase,
			What: fmt.Sprintf("%d rows of this server are not in Kafka, the first of them event %s", len(found.missing), found.missing[0].id),
			Why:  "they were committed after the relay had stopped, so their order among the others is not known",
			Fix:  cdc.FixResync,
		}
	}
	return nil
}

// say tells what the comparison means; events that only Kafka has are listed.
func (r *resync) say(found *comparison) {
	does := []string{fmt.Sprintf("drops slot %q, makes it anew, and goes on there with a generation of its own", r.c.Postgres.Slot)}
	if !r.publishesNothing {
		does = append(does, fmt.Sprintf("publishes %d rows that are not in Kafka, in the order of their creation; %d are", len(found.missing), found.report.Found))
	}
	if found.left {
		does = append(does, fmt.Sprintf("compares %d rows; those of transactions from %d to below %d need none, the position record proves that they are in Kafka", found.report.Rows, r.floor.From, r.floor.XID))
	}
	if found.report.Parked > 0 {
		does = append(does, fmt.Sprintf("leaves %d rows parked", found.report.Parked))
	}
	if len(found.unroutable) > 0 {
		does = append(does, fmt.Sprintf("passes over %d rows that cannot become a record", len(found.unroutable)))
	}
	if !r.options.assumed.IsZero() {
		does = append(does, fmt.Sprintf("takes what was made before %s for published", r.options.assumed.UTC().Format(time.RFC3339)))
	}
	if n := found.report.Phantom; n > 0 {
		does = append(does, fmt.Sprintf("leaves %d events in Kafka that the database has not", n))
	}
	r.report.Does, r.report.Events, r.report.EventCount = does, []commandEvent{}, 0
	for _, example := range found.report.Examples {
		if example.Kind == audit.KindPhantom {
			r.report.note(commandEvent{EventID: example.EventID.String(), Topic: example.Topic, Partition: example.Partition, Offset: example.Offset})
		}
	}
	r.report.EventCount = max(r.report.EventCount, int(found.report.Phantom))
}

// apply does it. Each step leaves behind what a further run goes on from: the
// slot is gone, or the record says resyncing, or it is done.
func (r *resync) apply(ctx context.Context) error {
	// 1. Nobody gets the old slot any more, and whoever had it is fenced.
	if err := r.dropSlot(ctx); err != nil {
		return err
	}
	publisher, kafkaFacts, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer publisher.Close()
	// 2. From here on only a resync goes on.
	begun, pins := cdc.BeginResync(kafkaFacts, r.facts, r.generation)
	r.begin(publisher, kafkaFacts, pins)
	if !r.publishesNothing {
		if err := r.commitQuietly(ctx, &begun, pins); err != nil {
			return err
		}
		// A backfill that had begun is fenced now, and none begins until it is over.
		if err := r.fenceBackfills(ctx); err != nil {
			return err
		}
	}
	// 3. The slot, and the snapshot of everything that it will not send.
	slot, err := r.createSlot(ctx)
	if err != nil {
		return err
	}
	defer slot.Release()
	scan, err := postgres.OpenOutboxScanIn(ctx, auditPostgresConfig(r.c), slot.Snapshot)
	if err != nil {
		return err
	}
	defer scan.Close()
	// 4. Hold it: a relay that took it now would fence the resync.
	stream, err := r.source.Attach(ctx)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // the slot is free when the connection is gone, in good order or not
	defer heartbeat(stream)()
	facts, err := stream.Facts(ctx)
	if err != nil {
		return err
	}
	ended, problem := cdc.EndResync(begun, facts, slot.ConsistentPoint)
	if problem != nil {
		return problem
	}
	// 5. and 6. What the snapshot has and Kafka has not.
	r.relyOn(&begun, facts)
	if err := r.publishMissing(ctx, scan, &begun); err != nil {
		return err
	}
	// 7. Stream. What the snapshot shows needs no comparison any more.
	oldest, _, err := scan.Horizon(ctx)
	if err != nil {
		return err
	}
	ended.PublishedFloor = &cdc.PublishedFloor{XID: oldest, LSN: slot.ConsistentPoint}
	return r.commit(ctx, publisher, ended, r.pinsToWrite(), kafkaFacts.Record)
}

// dropSlot waits for a slot that a relay is about to give back.
func (r *resync) dropSlot(ctx context.Context) error {
	for deadline := time.Now().Add(attachPatience); ; {
		_, err := r.admin.DropSlot(ctx)
		if err == nil || !errors.Is(err, cdc.ErrSlotActive) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// open fences everybody and reads the position, which may be lost with its topic.
func (r *resync) open(ctx context.Context) (cdc.Publisher, cdc.KafkaFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	if _, err := r.sink.EnsurePositionTopic(ctx); err != nil {
		return nil, cdc.KafkaFacts{}, err
	}
	return r.sink.Open(ctx)
}

func (r *resync) fenceBackfills(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	backfiller, err := r.sink.OpenBackfill(ctx)
	if err != nil {
		return err
	}
	backfiller.Close()
	return nil
}

// createSlot makes the slot. One that is there was made by somebody else since.
func (r *resync) createSlot(ctx context.Context) (*postgres.CreatedSlot, error) {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	slot, err := r.admin.CreateSlot(ctx, postgres.SlotOptions{ExportSnapshot: true})
	if err == nil && slot.AlreadyThere {
		slot.Release()
		return nil, &cdc.Problem{What: fmt.Sprintf("slot %q was made by somebody else just now", r.c.Postgres.Slot), Why: "nothing tells which rows it will send", Fix: "stop whoever makes it, and run the command again"}
	}
	return slot, err
}

// commitQuietly writes a record that is not the command's last word.
func (r *resync) commitQuietly(ctx context.Context, record *cdc.PositionRecord, pins []cdc.TopicPin, records ...cdc.Record) error {
	r.sign(record, nil)
	if err := r.publisher.Publish(ctx, &cdc.Batch{Records: records, Position: record, Pins: pins}); err != nil {
		return fmt.Errorf("resync: %w", err)
	}
	return nil
}

// adoptSystem is a resync that has nothing to publish: the server goes on with
// the history of the recorded one, and everything in its outbox is in Kafka.
func (m *commander) adoptSystem(ctx context.Context) error {
	r := &resync{commander: m, options: &resyncOptions{}, publishesNothing: true, observe: func(audit.Progress) {}}
	bounded, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	facts, err := m.source.Inspect(bounded)
	if err != nil {
		return err
	}
	advised, err := m.sink.Advise(bounded)
	if err != nil {
		return err
	}
	finding := cdc.DecideIdentity(advised, facts, cdc.ExactlyOnce)
	switch {
	case advised.Record != nil && advised.Record.State == cdc.RecordRunning && advised.Record.SystemID == facts.SystemID && finding == nil:
		return nil // by an earlier run of this command
	case finding == nil:
		return &cdc.Problem{What: "the server is the recorded one", Why: "there is no other to adopt", Fix: "start the relay"}
	case finding.Reason != cdc.HaltOtherDatabase:
		return finding
	}
	return r.run(ctx)
}
