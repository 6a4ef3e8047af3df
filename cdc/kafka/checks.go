package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// The levels of a Finding.
const (
	LevelOK      = "ok"
	LevelWarn    = "warn"
	LevelFail    = "fail"
	LevelSkipped = "skipped"
)

// Finding is the outcome of one check.
type Finding struct {
	Name    string // what was looked at: "topic payment-event"
	Level   string // ok, warn, fail, skipped
	Problem string // what was found; for ok the fact itself
	Why     string
	Fix     string
}

// Check looks at everything the relay needs of the cluster, without changing
// anything and without fencing a relay that runs: no InitProducerId, so rights
// on the transactional ids are not tried. A failed check does not stop the
// others; those that depend on it are skipped.
func (s *Sink) Check(ctx context.Context, topics []cdc.Topic) []Finding {
	names := make([]string, 0, len(topics))
	for _, topic := range topics {
		names = append(names, "topic "+string(topic))
	}
	skipped := append([]string{"cluster id", "transaction version", "position topic", "position record"}, names...)

	var findings []Finding
	err := s.withClient(ctx, func(cl *kgo.Client) error {
		if err := cl.Ping(ctx); err != nil {
			return s.explain("reach a broker", err)
		}
		findings = append(findings, Finding{Name: "brokers", Level: LevelOK, Problem: s.brokers() + " answer"})
		findings = append(findings, s.checkCluster(ctx, cl)...)
		findings = append(findings, s.checkPosition(ctx, cl)...)
		for i, topic := range topics {
			findings = append(findings, s.checkTopic(ctx, cl, names[i], topic)...)
		}
		return nil
	})
	if err != nil {
		findings = append(findings, failed("brokers", err))
		for _, name := range skipped {
			findings = append(findings, Finding{Name: name, Level: LevelSkipped, Problem: "no broker answers"})
		}
	}
	return findings
}

func failed(name string, err error) Finding {
	p := cdc.AsProblem(err)
	f := Finding{Name: name, Level: LevelFail, Problem: p.What, Why: p.Why, Fix: p.Fix}
	if p.Err != nil {
		f.Problem += ": " + p.Err.Error()
	}
	return f
}

func (s *Sink) checkCluster(ctx context.Context, cl *kgo.Client) []Finding {
	var findings []Finding
	if cluster, _, err := describeTopics(ctx, cl); err != nil {
		findings = append(findings, failed("cluster id", s.explain("ask for the cluster id", err)))
	} else {
		findings = append(findings, Finding{Name: "cluster id", Level: LevelOK, Problem: cluster})
	}
	const name = "transaction version"
	switch level, err := transactionVersion(ctx, cl); {
	case err != nil:
		findings = append(findings, failed(name, s.explain("ask for the transaction version", err)))
	case level < 2:
		findings = append(findings, Finding{Name: name, Level: LevelOK, Problem: fmt.Sprintf("%d: each lost answer to EndTxn costs a restart of the relay", level),
			Why: "transactions v2 came with Kafka 4.0", Fix: "kafka-features.sh --bootstrap-server " + s.bootstrap() + " upgrade --feature transaction.version=2"})
	default:
		findings = append(findings, Finding{Name: name, Level: LevelOK, Problem: strconv.Itoa(int(level))})
	}
	return findings
}

func (s *Sink) checkPosition(ctx context.Context, cl *kgo.Client) []Finding {
	const name, recordName = "position topic", "position record"
	state, err := s.lookUp(ctx, cl, cdc.Topic(s.cfg.PositionTopic))
	none := Finding{Name: recordName, Level: LevelOK, Problem: "none, and at-least-once needs none"}
	if err == nil && !state.exists && s.cfg.Mode == cdc.AtLeastOnce {
		return []Finding{{Name: name, Level: LevelOK, Problem: "does not exist, and at-least-once needs none"}, none}
	}
	if err == nil && !state.exists {
		err = &cdc.Problem{What: "position topic " + s.cfg.PositionTopic + " does not exist", Why: "the relay keeps its position there", Fix: "cdc-relay init --apply"}
	}
	if err == nil {
		err = s.checkPositionTopic(state)
	}
	if err != nil {
		return []Finding{failed(name, err), {Name: recordName, Level: LevelSkipped, Problem: "no usable position topic"}}
	}
	findings := s.checkDurability(name, s.cfg.PositionTopic, state)
	facts, err := s.advise(ctx, cl)
	switch {
	case err != nil:
		findings = append(findings, failed(recordName, err))
	case facts.Record == nil && s.cfg.Mode == cdc.AtLeastOnce:
		findings = append(findings, none)
	case facts.Record == nil:
		findings = append(findings, Finding{Name: recordName, Level: LevelFail, Problem: "there is none for relay " + s.cfg.Relay,
			Why: "run never makes its own first position", Fix: "cdc-relay init --apply"})
	default:
		findings = append(findings, Finding{Name: recordName, Level: LevelOK,
			Problem: fmt.Sprintf("%s, %s, recorded LSN %s", facts.Record.State, facts.Record.Mode, facts.Record.RecordedLSN)})
	}
	return findings
}

func (s *Sink) checkTopic(ctx context.Context, cl *kgo.Client, name string, topic cdc.Topic) []Finding {
	if why := invalidTopicName(topic); why != "" {
		return []Finding{{Name: name, Level: LevelFail, Problem: fmt.Sprintf("the name %q %s", topic, why), Fix: "correct routing.allowed_topics"}}
	}
	if string(topic) == s.cfg.PositionTopic {
		return []Finding{{Name: name, Level: LevelFail, Problem: "it is the relay's position topic", Fix: "correct routing.allowed_topics"}}
	}
	state, err := s.lookUp(ctx, cl, topic)
	switch {
	case err != nil:
		return []Finding{failed(name, err)}
	case !state.exists && s.cfg.CreateTopics:
		return []Finding{{Name: name, Level: LevelOK, Problem: fmt.Sprintf("does not exist; will be created with %d partitions, replication %d", s.cfg.Partitions, s.cfg.Replication)}}
	case !state.exists:
		return []Finding{failed(name, s.missingTopic(topic))}
	}
	return s.checkDurability(name, string(topic), state)
}

// checkDurability finds what lets brokers lose acknowledged writes. Without any
// such finding it returns one that is ok.
func (s *Sink) checkDurability(name, topic string, state topicState) []Finding {
	var findings []Finding
	warn := func(problem, why, fix string) {
		findings = append(findings, Finding{Name: name, Level: LevelWarn, Problem: problem, Why: why, Fix: fix})
	}
	alter := "kafka-configs.sh --bootstrap-server " + s.bootstrap() + " --alter --entity-type topics --entity-name " + topic + " --add-config "
	if state.replication < 3 {
		warn(fmt.Sprintf("has %d replicas", state.replication), "one lost disk, or one during a restart of another broker, loses acknowledged records",
			"kafka-reassign-partitions.sh: give it 3 replicas")
	}
	if state.configs == nil {
		warn("its configs cannot be read", fmt.Sprint(state.configsErr), "give the relay DescribeConfigs on the topic; Kafka's defaults are assumed")
		return findings
	}
	if state.configs["min.insync.replicas"] == "1" {
		warn("has min.insync.replicas=1", "an acknowledged record may exist on one broker only", alter+"min.insync.replicas=2 (with 3 replicas)")
	}
	if state.configs["unclean.leader.election.enable"] == "true" {
		warn("has unclean.leader.election.enable=true", "a replica that lacks acknowledged records may become the leader", alter+"unclean.leader.election.enable=false")
	}
	if len(findings) == 0 {
		findings = append(findings, Finding{Name: name, Level: LevelOK,
			Problem: fmt.Sprintf("%d partitions, %d replicas, max.message.bytes %d", state.partitions, state.replication, state.maxMessageBytes())})
	}
	return findings
}
