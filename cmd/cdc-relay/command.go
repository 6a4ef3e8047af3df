package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// commandReport is what skip, adopt and resync say, and their `-o json`, a
// contract.
type commandReport struct {
	Command string         `json:"command"`
	Reason  cdc.HaltReason `json:"reason,omitempty"`  // of the finding that it ends
	Finding string         `json:"finding,omitempty"` // empty: nothing was found, and nothing is to be done
	Does    []string       `json:"does"`              // what it did, or would do
	Events  []commandEvent `json:"events"`            // what it is about, at most 1000
	// EventCount counts all of them.
	EventCount int    `json:"event_count"`
	Left       string `json:"left,omitempty"` // what the next start finds; empty: it streams
	LeftFix    string `json:"left_fix,omitempty"`
	Confirmed  bool   `json:"confirmed"`
	Done       bool   `json:"done"`         // the position topic says so now
	ID         string `json:"id,omitempty"` // of the command record
}

// commandEvent is an event that a command is about.
type commandEvent struct {
	EventID   string    `json:"event_id"`
	Topic     cdc.Topic `json:"topic,omitempty"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Position  string    `json:"position,omitempty"`
}

const commandShownEvents = 1000

// note counts an event and keeps the first ones.
func (r *commandReport) note(event commandEvent) {
	if r.EventCount++; r.EventCount <= commandShownEvents {
		r.Events = append(r.Events, event)
	}
}

func (r *commandReport) print(w io.Writer) {
	switch {
	case r.Finding == "" && len(r.Does) == 0:
		fmt.Fprintf(w, "%s: nothing to do\n", r.Command)
		return
	case r.Reason != "":
		fmt.Fprintf(w, "ends     %s: %s\n", r.Reason, r.Finding)
	case r.Finding != "":
		fmt.Fprintf(w, "found    %s\n", r.Finding)
	}
	for _, does := range r.Does {
		fmt.Fprintf(w, "does     %s\n", does)
	}
	for _, event := range r.Events {
		fmt.Fprintf(w, "event    %s", event.EventID)
		if event.Topic != "" {
			fmt.Fprintf(w, "  %s/%d@%d  %s", event.Topic, event.Partition, event.Offset, event.Position)
		}
		fmt.Fprintln(w)
	}
	if r.EventCount > len(r.Events) {
		fmt.Fprintf(w, "event    ... and %d more\n", r.EventCount-len(r.Events))
	}
	if r.Left != "" {
		fmt.Fprintf(w, "left     %s\n         fix: %s\n", r.Left, r.LeftFix)
	}
	if r.Done {
		fmt.Fprintf(w, "done     recorded under %s\n", r.ID)
		return
	}
	fmt.Fprintln(w, "nothing was changed; --confirm does it")
}

// commander has the parts of a command that changes what the position topic says.
type commander struct {
	c      *loadedConfig
	router *routing.Router
	source *postgres.Source
	sink   *kafka.Sink
	reader *kafka.Reader
	report *commandReport
}

func newCommander(c *loadedConfig, stderr io.Writer, command string) (*commander, error) {
	if cdc.Mode(c.Delivery) == cdc.AtLeastOnce {
		return nil, &usageError{text: command + " does not go with delivery: at-least-once, where no position is recorded: the slot alone says where to go on"}
	}
	quiet := c.Log
	quiet.Level = "warn"
	logger := newLogger(&quiet, stderr).With(keyRelay, c.Relay)
	m := &commander{c: c, report: &commandReport{Command: command, Does: []string{}, Events: []commandEvent{}}}
	var err error
	if m.router, err = newRouter(c); err != nil {
		return nil, err
	}
	if m.source, err = postgres.New(postgresConfig(c, m.router.RequiredColumns(), logger)); err != nil {
		return nil, err
	}
	if m.sink, err = kafka.New(kafkaConfig(c, logger)); err != nil {
		return nil, err
	}
	m.reader = kafka.NewReader(m.sink)
	m.reader.Compacted = true // to list what is left there
	return m, nil
}

func (m *commander) close() { m.source.Close() }

// lease is what a command decides and writes with: as at the start of a relay,
// the slot is held, every transactional id is fenced, and the facts were read
// after that. Whoever takes over later fences the command, whose writing fails.
type lease struct {
	stream    cdc.Stream
	publisher cdc.Publisher
	kafka     cdc.KafkaFacts
	source    cdc.SourceFacts
	// letGo ends the heartbeats; from then on the stream belongs to the caller.
	letGo func()
}

// hold takes the lease and lends it to do. An error of it comes with what is to
// be done about it.
func (m *commander) hold(ctx context.Context, do func(ctx context.Context, l *lease) error) error {
	looking, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	facts, err := m.source.Inspect(looking)
	if err != nil {
		return err
	}
	stream, err := m.attach(looking, facts.Slot)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // the slot is free when the connection is gone, in good order or not
	l := &lease{stream: stream, letGo: heartbeat(stream)}
	defer func() { l.letGo() }()
	if l.publisher, l.kafka, err = m.sink.Open(looking); err != nil {
		return err
	}
	defer l.publisher.Close()
	// A server that ends the stream at once, because it cannot decode, is no reason
	// to give up: the ids are fenced, so nobody has recorded anything since.
	if l.source, err = stream.Facts(looking); err != nil && !errors.Is(err, cdc.ErrSlotReleased) {
		return err
	}
	return do(ctx, l)
}

// attachPatience is how long a command waits for a slot that a relay may be
// about to give back.
const attachPatience = 10 * time.Second

func (m *commander) attach(ctx context.Context, slot *cdc.SlotFacts) (cdc.Stream, error) {
	if slot == nil || slot.Lost() {
		return nil, &cdc.Problem{
			Treatment: cdc.Halt, Reason: cdc.HaltSlotLost,
			What: fmt.Sprintf("slot %q does not exist or is lost", m.c.Postgres.Slot), Why: "there is nothing to go on from", Fix: cdc.FixResync,
		}
	}
	for deadline := time.Now().Add(attachPatience); ; {
		stream, err := m.source.Attach(ctx)
		if err == nil || !errors.Is(err, cdc.ErrSlotActive) {
			return stream, err
		}
		if time.Now().After(deadline) {
			return nil, &cdc.Problem{
				What: fmt.Sprintf("slot %q is held by another process", m.c.Postgres.Slot), Why: "a command needs the slot, as a relay does",
				Fix: "stop the relay with all its replicas, then run the command again", Err: err,
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// heartbeat keeps the server from ending the stream until stop is called. It
// acknowledges nothing. A stream that breaks meanwhile is found by who uses it.
func heartbeat(stream cdc.Stream) (stop func()) {
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(stream.StatusInterval())
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if stream.Status(0, false) != nil {
					return
				}
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		beating.Wait()
	})
}

// sign makes the record, and what is told of it, this command's.
func (m *commander) sign(record *cdc.PositionRecord, before *cdc.PositionRecord) *cdc.CommandRecord {
	self, now := identity(m.c), time.Now().UTC()
	record.Slot, record.TransactionalIDs = self.Slot, self.TransactionalIDs
	record.RelayVersion, record.Host, record.At = self.RelayVersion, self.Host, now
	r := m.report
	r.ID = uuid.NewString()
	told := &cdc.CommandRecord{
		Version: cdc.CommandRecordVersion, ID: r.ID, Command: r.Command, Reason: r.Reason, Finding: r.Finding, Does: r.Does,
		Before: before, EventCount: r.EventCount, RelayVersion: self.RelayVersion, Host: self.Host, At: now,
	}
	for _, event := range r.Events {
		told.Events = append(told.Events, event.EventID)
	}
	return told
}

// commit writes the record, what is told of it, and records that go with it, in
// one transaction.
func (m *commander) commit(ctx context.Context, publisher cdc.Publisher, record cdc.PositionRecord, pins []cdc.TopicPin, before *cdc.PositionRecord, records ...cdc.Record) error {
	batch := &cdc.Batch{Records: records, Position: &record, Pins: pins, Command: m.sign(&record, before)}
	if err := publisher.Publish(ctx, batch); err != nil {
		return fmt.Errorf("record %s: %w", m.report.Command, err)
	}
	m.report.Done = true
	return nil
}

// end prints the report, unless err is why there is none.
func (p *program) end(report *commandReport, output outputFormat, err error) error {
	if err != nil {
		return err
	}
	if output == outputJSON {
		return p.printJSON(report)
	}
	report.print(p.stdout)
	return nil
}
