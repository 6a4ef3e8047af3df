package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// defaultMaxMessageBytes is Kafka's default of max.message.bytes.
const defaultMaxMessageBytes = 1048588

// topicState is what the cluster says about one topic.
type topicState struct {
	exists      bool
	partitions  int32
	replication int
	id          string // base64 as Kafka prints it; empty where the broker has none
	// configs is nil when the broker does not let us look (DescribeConfigs).
	configs    map[string]string
	configsErr error // why not
}

// describeTopics asks for the named topics. A topic that does not exist is in
// the answer with exists false.
func describeTopics(ctx context.Context, cl *kgo.Client, names ...string) (cluster string, states map[string]topicState, err error) {
	admin := kadm.NewClient(cl)
	if len(names) == 0 { // kadm would ask for every topic
		metadata, err := admin.BrokerMetadata(ctx)
		return metadata.Cluster, nil, err
	}
	metadata, err := admin.Metadata(ctx, names...)
	if err != nil {
		return "", nil, err
	}
	states = make(map[string]topicState, len(names))
	var existing []string
	for _, name := range names {
		detail, ok := metadata.Topics[name]
		switch {
		case !ok || errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
			states[name] = topicState{}
			continue
		case detail.Err != nil:
			return "", nil, fmt.Errorf("topic %s: %w", name, detail.Err)
		}
		state := topicState{exists: true, partitions: int32(len(detail.Partitions)), replication: detail.Partitions.NumReplicas()}
		if detail.ID != (kadm.TopicID{}) {
			state.id = topicID(detail.ID)
		}
		states[name] = state
		existing = append(existing, name)
	}
	return metadata.Cluster, states, describeConfigs(ctx, admin, existing, states)
}

// describeConfigs fills in the configs. Missing rights are no failure: the relay
// then goes by Kafka's defaults.
func describeConfigs(ctx context.Context, admin *kadm.Client, names []string, states map[string]topicState) error {
	if len(names) == 0 {
		return nil
	}
	described, err := admin.DescribeTopicConfigs(ctx, names...)
	if isForbidden(err) && len(names) > 1 {
		// One forbidden topic fails the whole answer: ask for each alone.
		for _, name := range names {
			if err := describeConfigs(ctx, admin, []string{name}, states); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil && !isForbidden(err) {
		return fmt.Errorf("describe topic configs: %w", err)
	}
	for _, name := range names {
		state, resource, err := states[name], kadm.ResourceConfig{}, err
		if err == nil {
			resource, err = described.On(name, nil)
		}
		if err == nil {
			err = resource.Err
		}
		switch {
		case err == nil:
			state.configs = make(map[string]string, len(resource.Configs))
			for _, config := range resource.Configs {
				state.configs[config.Key] = config.MaybeValue()
			}
		case isForbidden(err):
			state.configsErr = err
		case errors.Is(err, kerr.UnknownTopicOrPartition): // deleted since
			state = topicState{}
		default:
			return fmt.Errorf("describe configs of topic %s: %w", name, err)
		}
		states[name] = state
	}
	return nil
}

func isForbidden(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// facts are the topic's in the core's words.
func (t topicState) facts(topic cdc.Topic) cdc.TopicFacts {
	return cdc.TopicFacts{
		TopicPin:        cdc.TopicPin{Topic: topic, ID: t.id, Partitions: t.partitions},
		MaxMessageBytes: t.maxMessageBytes(),
		Compacted:       slices.Contains(t.cleanupPolicy(), "compact"),
	}
}

// maxMessageBytes is also bounded by what fits in one request.
func (t topicState) maxMessageBytes() int {
	n, err := strconv.Atoi(t.configs["max.message.bytes"])
	if err != nil {
		n = defaultMaxMessageBytes
	}
	return min(n, maxBatchBytes)
}

func (t topicState) cleanupPolicy() []string {
	policies := strings.Split(t.configs["cleanup.policy"], ",")
	for i := range policies {
		policies[i] = strings.TrimSpace(policies[i])
	}
	return policies
}

// checkPositionTopic says what is wrong with the position topic, or nil.
func (s *Sink) checkPositionTopic(t topicState) error {
	topic := s.cfg.PositionTopic
	if t.partitions != 1 {
		return &cdc.Problem{
			Treatment: cdc.Setup,
			What:      fmt.Sprintf("position topic %s has %d partitions", topic, t.partitions),
			Why:       "the newest position is the last record of exactly one partition",
			Fix: fmt.Sprintf("stop the relay, kafka-topics.sh --bootstrap-server %s --delete --topic %s, then cdc-relay init --apply for a new relay; the position is lost with the topic, so for one that has published before: %s",
				s.bootstrap(), topic, cdc.FixResync),
		}
	}
	if t.configs == nil {
		s.log.Warn("the cleanup policy of the position topic is not known", "topic", topic, "cause", t.configsErr)
		return nil
	}
	if policy := t.cleanupPolicy(); len(policy) != 1 || policy[0] != "compact" {
		return &cdc.Problem{
			Treatment: cdc.Setup,
			What:      fmt.Sprintf("position topic %s has cleanup.policy=%s", topic, strings.Join(policy, ",")),
			Why:       "it must be exactly compact: any other deletes the position of a relay that is quiet for long",
			Fix: fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact",
				s.bootstrap(), topic),
		}
	}
	return nil
}

// lookUp asks for one topic.
func (s *Sink) lookUp(ctx context.Context, cl *kgo.Client, topic cdc.Topic) (topicState, error) {
	_, topics, err := describeTopics(ctx, cl, string(topic))
	if err != nil {
		return topicState{}, s.explain("look up topic "+string(topic), err)
	}
	return topics[string(topic)], nil
}

// createAndLookUp creates a topic, which may exist by now, and waits until
// brokers know it: for a moment after its creation they may not.
func (s *Sink) createAndLookUp(ctx context.Context, cl *kgo.Client, topic cdc.Topic, partitions int32, configs map[string]*string) (state topicState, created bool, err error) {
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, s.cfg.Replication, configs, string(topic))
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return topicState{}, false, s.explain("create topic "+string(topic), err)
	}
	if created = err == nil; created {
		s.log.Info("topic created", "topic", topic, "partitions", partitions, "replication", s.cfg.Replication)
	}
	for {
		state, err := s.lookUp(ctx, cl, topic)
		if err != nil || state.exists {
			return state, created, err
		}
		if err := pause(ctx, retryPause); err != nil {
			return topicState{}, created, s.explain("wait for topic "+string(topic)+" after its creation", err)
		}
	}
}

// missingTopic is the problem of a topic that is needed and not there.
func (s *Sink) missingTopic(topic cdc.Topic) error {
	return &cdc.Problem{
		Treatment: cdc.Setup,
		What:      fmt.Sprintf("topic %s does not exist", topic),
		Why:       kerr.UnknownTopicOrPartition.Message + "; create_topics is false",
		Fix: fmt.Sprintf("cdc-relay init --apply, or kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d --replication-factor %d",
			s.bootstrap(), topic, s.cfg.Partitions, s.cfg.Replication),
	}
}

// topicID is the text of a topic's id.
func topicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
