package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/sql"
)

// genesis makes a new relay's objects. Its order is what makes it safe to die
// between any two steps: the record "initialising" exists before the slot, so
// an unfinished init is told apart from a slot whose position was lost.
type genesis struct {
	c       *loadedConfig
	options initOptions
	source  *postgres.Source
	sink    *kafka.Sink
	relay   *postgres.Admin // in the relay's role: makes the slot
	admin   *postgres.Admin // in init's role: makes publication and table
}

func newGenesis(c *loadedConfig, logger *slog.Logger, options initOptions) (*genesis, error) {
	router, err := newRouter(c)
	if err != nil {
		return nil, err
	}
	g := &genesis{c: c, options: options}
	relay := postgresConfig(c, router.RequiredColumns(), logger)
	if g.source, err = postgres.New(relay); err != nil {
		return nil, err
	}
	if g.relay, err = postgres.NewAdmin(relay); err != nil {
		return nil, err
	}
	if g.admin, err = postgres.NewAdmin(adminPostgresConfig(c, router.RequiredColumns(), logger)); err != nil {
		return nil, err
	}
	if g.sink, err = kafka.New(kafkaConfig(c, logger)); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *genesis) close() { g.source.Close() }

// genesisTimeout bounds one step that waits for a server. Creating a slot waits
// for the transactions that are open at that moment.
const genesisTimeout = time.Minute

// attempt applies, unless nothing is left to do for a relay that never ran. What
// init would refuse, run judges in its own way; so that is nothing to do either.
func (g *genesis) attempt(ctx context.Context, tell func(step)) (done bool, err error) {
	facts, record, err := g.look(ctx)
	if err != nil {
		return false, err
	}
	if record != nil && record.State == cdc.RecordInitialising && facts.Slot != nil && facts.Slot.Active {
		// Another init holds the slot until its last record is committed; run would
		// halt at the one that is there now.
		return false, fmt.Errorf("slot %s is active for PID %d, which seems to finish another init", g.c.Postgres.Slot, facts.Slot.ActivePID)
	}
	todo, problem := g.plan(&facts, record)
	if problem != nil || todo == planNone {
		return true, nil //nolint:nilerr // run tells a refusal in its own words
	}
	err = g.apply(ctx, tell)
	return err == nil, err
}

func (g *genesis) look(ctx context.Context) (cdc.SourceFacts, *cdc.PositionRecord, error) {
	facts, err := g.inspect(ctx)
	if err != nil {
		return facts, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	kafkaFacts, err := g.sink.Advise(ctx)
	return facts, kafkaFacts.Record, err
}

// inspect looks at the server. Findings about publication and table are not
// errors yet: init is about to make them.
func (g *genesis) inspect(ctx context.Context) (cdc.SourceFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	facts, err := g.source.Inspect(ctx)
	if err == nil || facts.SystemID == "" {
		return facts, err
	}
	var grave []error
	for _, e := range unjoin(err) {
		problem, ok := errors.AsType[*cdc.Problem](e)
		if !ok || problem.Reason != cdc.HaltStreamChanged {
			grave = append(grave, e)
		}
	}
	return facts, errors.Join(grave...)
}

// plan is what is left to do about slot and position record.
type plan uint8

const (
	planFresh  plan = iota // nothing exists
	planFinish             // an earlier init stopped behind its record
	planNone               // both exist
)

// planGenesis decides by what exists, or refuses with the way out.
func planGenesis(relay string, facts *cdc.SourceFacts, slotName string, record *cdc.PositionRecord) (plan, *cdc.Problem) {
	slot := facts.Slot
	refuse := func(reason cdc.HaltReason, what, why, fix string) (plan, *cdc.Problem) {
		return planNone, &cdc.Problem{Treatment: cdc.Halt, Reason: reason, What: what, Why: why, Fix: fix}
	}
	switch {
	case record == nil && slot == nil:
		return planFresh, nil
	case record == nil:
		return refuse(cdc.HaltPositionMissing,
			fmt.Sprintf("slot %q exists, but relay %q has no position record", slotName, relay),
			"the slot belongs to something else, or the position topic was lost; starting at the slot could publish rows twice or never",
			fmt.Sprintf("if nothing needs the slot, drop it with SELECT pg_drop_replication_slot('%s') and run init again; else set postgres.slot to another name, or kafka.position_topic to the topic that has the record; if that topic was lost: %s", slotName, cdc.FixResync))
	case record.SystemID != facts.SystemID:
		return refuse(cdc.HaltOtherDatabase,
			fmt.Sprintf("the position record of relay %q belongs to another database server", relay),
			fmt.Sprintf("it was written for system identifier %s, this server has %s", record.SystemID, facts.SystemID),
			"point postgres.dsn to the server of this relay, or give the new relay a name of its own")
	case record.State == cdc.RecordResyncing:
		return refuse(cdc.HaltResyncUnfinished,
			fmt.Sprintf("a resync of relay %q began and has not finished", relay), "its record says resyncing", cdc.FixResync)
	case record.State == cdc.RecordInitialising && slot != nil && slot.Active:
		return refuse(cdc.HaltSetup,
			fmt.Sprintf("slot %q is active for PID %d while init is unfinished", slotName, slot.ActivePID),
			"another process may be moving it", "stop that process and run init again")
	case record.State == cdc.RecordInitialising && slot != nil && (slot.Lost() || slot.Plugin != "pgoutput"):
		return refuse(cdc.HaltSlotLost,
			fmt.Sprintf("slot %q cannot be used", slotName), "it is lost or of another plugin",
			fmt.Sprintf("drop it with SELECT pg_drop_replication_slot('%s') and run init again", slotName))
	case record.State == cdc.RecordInitialising:
		return planFinish, nil
	case slot == nil:
		return refuse(cdc.HaltSlotLost,
			fmt.Sprintf("slot %q does not exist, but relay %q has published up to %s", slotName, relay, record.RecordedLSN),
			"a new slot would pass over what was committed since then",
			"point postgres.dsn to the database that has the slot; if the slot is lost: "+cdc.FixResync+"; a new relay needs a name of its own")
	}
	return planNone, nil
}

// apply does what is missing and tells every step.
func (g *genesis) apply(ctx context.Context, tell func(step)) error {
	facts, record, err := g.look(ctx)
	if err != nil {
		return err
	}
	// Refuse before anything was made.
	todo, problem := g.plan(&facts, record)
	if problem != nil {
		return problem
	}
	if g.atLeastOnce() {
		return g.applyAtLeastOnce(ctx, tell)
	}
	if err := g.topics(ctx, tell); err != nil {
		return err
	}
	if todo == planFresh {
		if err := g.begin(ctx, &facts); err != nil {
			return err
		}
	}
	if err := g.publication(ctx, tell); err != nil {
		return err
	}
	if todo == planNone {
		tell(step{"slot " + g.c.Postgres.Slot, outcomeThere})
		tell(step{"position record of " + g.c.Relay, outcomeThere})
		return nil
	}
	return g.finish(ctx, tell)
}

// topics makes the position topic and the topics that are allowed by name.
func (g *genesis) topics(ctx context.Context, tell func(step)) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	if !g.atLeastOnce() {
		created, err := g.sink.EnsurePositionTopic(ctx)
		if err != nil {
			return err
		}
		tell(stepOf("position topic "+g.c.Kafka.PositionTopic, created))
	}
	for _, topic := range exactTopics(g.c) {
		created, err := g.sink.EnsureTopic(ctx, topic)
		if err != nil {
			return err
		}
		tell(stepOf("topic "+string(topic), created))
	}
	return nil
}

// publication makes table and publication. The publication has to be older than
// the slot: a slot that is older stops at, or passes over, the rows between.
func (g *genesis) publication(ctx context.Context, tell func(step)) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	if g.options.withTable {
		ddl, err := sql.Outbox(g.c.Postgres.Table)
		if err != nil {
			return err
		}
		created, err := g.admin.EnsureTable(ctx, ddl)
		if err != nil {
			return err
		}
		tell(stepOf("table "+g.c.Postgres.Table, created))
	}
	created, err := g.admin.EnsurePublication(ctx)
	if err != nil {
		return err
	}
	tell(stepOf("publication "+g.c.Postgres.Publication, created))
	return nil
}

// begin commits the record "initialising".
func (g *genesis) begin(ctx context.Context, facts *cdc.SourceFacts) error {
	return g.commit(ctx, func(kafkaFacts *cdc.KafkaFacts) (*cdc.PositionRecord, error) {
		switch known := kafkaFacts.Record; {
		case known == nil:
			return g.record(facts, kafkaFacts.ClusterID), nil
		case known.State == cdc.RecordInitialising:
			return nil, nil // another init was faster; both mean the same
		}
		return nil, g.overtaken()
	})
}

// overtaken is the end of the slower of two inits.
func (g *genesis) overtaken() error {
	return &cdc.Problem{
		What: "another init of relay " + g.c.Relay + " finished at the same time", Why: "its position record is the true one", Fix: "nothing is missing; run the command again to see it",
	}
}

// finish makes the slot, unless an unfinished init made it, and commits the
// record at the point where the slot stands. It holds the slot meanwhile: as
// long as the record says initialising and this process has the slot, nobody
// can have moved it.
func (g *genesis) finish(ctx context.Context, tell func(step)) error {
	slot, err := g.createSlot(ctx)
	if err != nil {
		return err
	}
	defer slot.Release()
	tell(stepOf("slot "+g.c.Postgres.Slot, !slot.AlreadyThere))
	ctx, cancel := context.WithTimeout(ctx, 2*genesisTimeout)
	defer cancel()
	stream, err := g.source.Attach(ctx)
	if err != nil {
		return err
	}
	point, err := g.finishOn(ctx, stream)
	if closeErr := stream.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("release slot %s: %w", g.c.Postgres.Slot, closeErr)
	}
	if err != nil {
		return err
	}
	tell(step{"position record of " + g.c.Relay + " at " + point.String(), outcomeCreated})
	return nil
}

// finishOn reads the facts that the record names and commits it, all while the
// slot is held, exactly as a start does. Nothing is acknowledged.
func (g *genesis) finishOn(ctx context.Context, stream cdc.Stream) (cdc.LSN, error) {
	facts, err := stream.Facts(ctx)
	if err != nil {
		return 0, err
	}
	if facts.Publication == nil || facts.Table == nil || facts.Slot == nil {
		return 0, fmt.Errorf("slot %s, publication %s or table %s has gone", g.c.Postgres.Slot, g.c.Postgres.Publication, g.c.Postgres.Table)
	}
	commitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	committed := make(chan error, 1)
	go func() {
		committed <- g.commit(commitCtx, func(kafkaFacts *cdc.KafkaFacts) (*cdc.PositionRecord, error) {
			known := kafkaFacts.Record
			if known == nil || known.State != cdc.RecordInitialising || known.SystemID != facts.SystemID {
				return nil, g.overtaken()
			}
			record := g.record(&facts, kafkaFacts.ClusterID)
			record.State = cdc.RecordRunning
			record.Lineage, record.RecordedLSN = facts.Lineage, facts.Slot.ConfirmedFlush
			record.Publication, record.Table = facts.Publication.PublicationIdentity, *facts.Table
			return record, nil
		})
	}()
	return facts.Slot.ConfirmedFlush, keepAlive(stream, committed, cancel)
}

// keepAlive sends heartbeats until the work is done, so that the server does not
// take the slot away during it. It cancels the work when the stream breaks.
func keepAlive(stream cdc.Stream, done <-chan error, cancel context.CancelFunc) error {
	ticker := time.NewTicker(stream.StatusInterval())
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ticker.C:
			if err := stream.Status(0, false); err != nil {
				cancel()
				return errors.Join(err, <-done)
			}
		}
	}
}

func (g *genesis) createSlot(ctx context.Context) (*postgres.CreatedSlot, error) {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	return g.relay.CreateSlot(ctx, postgres.SlotOptions{})
}

// record is the first record of the relay, state initialising.
func (g *genesis) record(facts *cdc.SourceFacts, cluster string) *cdc.PositionRecord {
	self := identity(g.c)
	return &cdc.PositionRecord{
		Version: cdc.PositionRecordVersion, State: cdc.RecordInitialising, Mode: cdc.Mode(g.c.Delivery), Generation: 1,
		SystemID: facts.SystemID, Lineage: cdc.Lineage{{Timeline: facts.Timeline}}, Complete: true,
		Slot: self.Slot, TransactionalIDs: self.TransactionalIDs, KafkaClusterID: cluster,
		Publication:  cdc.PublicationIdentity{Name: g.c.Postgres.Publication},
		Table:        cdc.TableIdentity{Name: g.c.Postgres.Table},
		RelayVersion: self.RelayVersion, Host: self.Host, At: time.Now().UTC(),
	}
}

// commit fences the relay's ids, lets decide look at what is in Kafka now, and
// commits the record that it returns; nil means that nothing is to be written.
// Fencing first makes the look final: no other process can write after it.
func (g *genesis) commit(ctx context.Context, decide func(*cdc.KafkaFacts) (*cdc.PositionRecord, error)) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	publisher, facts, err := g.sink.Open(ctx)
	if err != nil {
		return err
	}
	defer publisher.Close()
	record, err := decide(&facts)
	if err != nil || record == nil {
		return err
	}
	if err := publisher.Publish(ctx, &cdc.Batch{Position: record}); err != nil {
		return fmt.Errorf("commit the position record %s: %w", record.State, err)
	}
	return nil
}

func stepOf(name string, created bool) step {
	if created {
		return step{name, outcomeCreated}
	}
	return step{name, outcomeThere}
}
