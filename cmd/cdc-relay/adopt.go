package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// adoptOptions are the flags of adopt; exactly one of the first seven is given.
type adoptOptions struct {
	stream, partitions, newKafka, fromSlot, newSystem, divergence bool

	topic   string
	confirm bool
}

// chosen are the flags that were given, as typed.
func (o *adoptOptions) chosen() []string {
	var given []string
	for _, flag := range []struct {
		given bool
		name  string
	}{
		{o.stream, "--stream"},
		{o.topic != "", "--topic " + o.topic},
		{o.partitions, "--partitions"},
		{o.newKafka, "--new-kafka"},
		{o.fromSlot, "--from-slot"},
		{o.newSystem, "--new-system"},
		{o.divergence, "--accept-divergence"},
	} {
		if flag.given {
			given = append(given, flag.name)
		}
	}
	return given
}

func (p *program) adoptCommand() *cobra.Command {
	var options adoptOptions
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Take as it is now what the relay halts at: stream, topic, cluster, slot, server, divergence",
		Long: `Take as it is now what the relay halts at. Each flag ends one kind of halt and
refuses where the finding is another:

  --stream             stream-changed: publication and table as they are now
  --topic NAME         topic-recreated: the topic as it is now
  --partitions         no halt: keys are placed over all partitions of grown topics
  --new-kafka          other-kafka: the cluster that the topics were copied to
  --from-slot          mode-changed, slot-moved, position-missing: go on where the slot stands
  --new-system         other-database: the server that this one was upgraded or restored to
  --accept-divergence  diverged, after a failover that lost published commits

Without --confirm it only shows what it would do, and which events are concerned.
What it leaves missing, cdc-relay audit finds and cdc-relay backfill publishes.

Stop the relay first. What the command did is recorded in the position topic; it
may be repeated, also after it was killed.`,
		Example: `  cdc-relay adopt --config relay.yaml --stream
  cdc-relay adopt --config relay.yaml --stream --confirm`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&options.stream, "stream", false, "take publication and table as they are")
	flags.StringVar(&options.topic, "topic", "", "take the topic of this `NAME` as it is")
	flags.BoolVar(&options.partitions, "partitions", false, "place keys over all partitions that topics have")
	flags.BoolVar(&options.newKafka, "new-kafka", false, "take the cluster as the one that goes on")
	flags.BoolVar(&options.fromSlot, "from-slot", false, "go on where the slot stands")
	flags.BoolVar(&options.newSystem, "new-system", false, "take the server as the one that goes on, if Kafka misses only what its slot sends; else the slot is made anew, if nothing is missing")
	flags.BoolVar(&options.divergence, "accept-divergence", false, "go on where the server left the published history")
	flags.BoolVar(&options.confirm, "confirm", false, "do it instead of showing it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		chosen := options.chosen()
		if len(chosen) != 1 {
			return &usageError{text: "say what to adopt, by one of --stream, --topic, --partitions, --new-kafka, --from-slot, --new-system and --accept-divergence"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		m, err := newCommander(c, p.stderr, "adopt "+chosen[0])
		if err != nil {
			return err
		}
		defer m.close()
		m.report.Confirmed = options.confirm
		if options.newSystem {
			err = m.adoptNewSystem(cmd.Context())
		} else {
			err = m.hold(cmd.Context(), func(ctx context.Context, l *lease) error { return m.adopt(ctx, l, &options) })
		}
		return p.end(m.report, *output, err)
	}
	return cmd
}

func (o *adoptOptions) decide(l *lease) (*cdc.Adoption, *cdc.Problem) {
	switch {
	case o.stream:
		return cdc.AdoptStream(l.kafka, l.source)
	case o.topic != "":
		return cdc.AdoptTopic(l.kafka, l.source, cdc.Topic(o.topic))
	case o.partitions:
		return cdc.AdoptPartitions(l.kafka, l.source)
	case o.newKafka:
		return cdc.AdoptKafka(l.kafka, l.source)
	case o.fromSlot:
		return cdc.AdoptSlot(l.kafka, l.source)
	}
	return cdc.AdoptDivergence(l.kafka, l.source)
}

func (m *commander) adopt(ctx context.Context, l *lease, options *adoptOptions) error {
	adoption, problem := options.decide(l)
	if problem != nil {
		return problem
	}
	if adoption.Finding == nil {
		return nil
	}
	r := m.report
	r.Reason, r.Finding, r.Does = adoption.Finding.Reason, adoption.Finding.What, append(r.Does, adoption.Does...)
	if adoption.Left != nil {
		r.Left, r.LeftFix = string(adoption.Left.Reason)+": "+adoption.Left.What, adoption.Left.Fix
	}
	if adoption.Doubtful != nil {
		if err := m.listDoubtful(ctx, l, adoption.Doubtful); err != nil {
			return err
		}
	}
	if options.newKafka && r.EventCount > 0 {
		return &cdc.Problem{
			Treatment: cdc.Halt, Reason: cdc.HaltOtherKafka,
			What: fmt.Sprintf("the topics of this cluster have %d records behind the position that was copied to it", r.EventCount),
			Why:  "the copy of the position topic is older than that of the other topics: going on there would publish these rows again",
			Fix:  cdc.FixResync,
		}
	}
	if !r.Confirmed {
		return nil
	}
	if l.kafka.Record == nil {
		if _, err := m.sink.EnsurePositionTopic(ctx); err != nil {
			return err
		}
	}
	return m.commit(ctx, l.publisher, adoption.Record, adoption.Pins, l.kafka.Record)
}

// listDoubtful notes the records whose positions are in doubt.
func (m *commander) listDoubtful(ctx context.Context, l *lease, doubtful func(cdc.Position) bool) error {
	topics, err := m.usedTopics(ctx, l.kafka)
	if err != nil || len(topics) == 0 {
		return err
	}
	if m.c.Routing.Format == "debezium" && !m.c.Routing.PositionHeader {
		m.report.Does = append(m.report.Does, "cannot list the events: with routing.format debezium and without routing.position_header, records do not say where they come from")
	}
	_, err = m.reader.Read(ctx, topics, time.Time{}, func(record *audit.Record) error {
		position, ok := positionOf(record)
		if ok && doubtful(position) {
			m.report.note(commandEvent{EventID: m.eventID(record), Topic: record.Topic, Partition: record.Partition, Offset: record.Offset, Position: position.Header()})
		}
		return nil
	})
	return err
}

// usedTopics are the topics that exist and may have records of this relay.
func (m *commander) usedTopics(ctx context.Context, kafkaFacts cdc.KafkaFacts) ([]cdc.Topic, error) {
	used := map[cdc.Topic]bool{}
	for topic := range kafkaFacts.Topics {
		used[topic] = true
	}
	for _, topic := range append(exactTopics(m.c), cdc.Topic(m.c.ParkedTopic)) {
		n, err := m.reader.Partitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		used[topic] = used[topic] || n > 0
	}
	maps.DeleteFunc(used, func(_ cdc.Topic, exists bool) bool { return !exists })
	return slices.Sorted(maps.Keys(used)), nil
}

// headerValue returns a header's value, nil where there is none.
func headerValue(record *audit.Record, key string) []byte {
	for _, header := range record.Headers {
		if header.Key == key {
			return header.Value
		}
	}
	return nil
}

// positionOf reads where a record comes from.
func positionOf(record *audit.Record) (cdc.Position, bool) {
	value := headerValue(record, "cdc-relay-position")
	if value == nil {
		return cdc.Position{}, false
	}
	position, err := cdc.ParsePositionHeader(string(value))
	return position, err == nil
}

// idHeader is the header with the event id.
func idHeader(c *loadedConfig) string {
	if c.Routing.Format == "raw" || c.Routing.Format == "debezium" {
		return "id"
	}
	return "ce_id"
}

// eventID is what the record's header says, or its key in the parked topic.
func (m *commander) eventID(record *audit.Record) string {
	if record.Topic == cdc.Topic(m.c.ParkedTopic) {
		return string(record.Key)
	}
	return string(headerValue(record, idHeader(m.c)))
}
