package routing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// maxTopicNameBytes is Kafka's limit. (org.apache.kafka.common.internals.Topic.)
const maxTopicNameBytes = 249

// topicNameProblem says why Kafka would refuse the name; empty when it would not.
func topicNameProblem(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case name == "." || name == "..":
		return "Kafka reserves it"
	case len(name) > maxTopicNameBytes:
		return fmt.Sprintf("it has %d characters, Kafka allows %d", len(name), maxTopicNameBytes)
	}
	for i := range len(name) {
		if !isTopicNameByte(name[i]) {
			return fmt.Sprintf("it contains %q, Kafka allows a-z A-Z 0-9 . _ -", name[i])
		}
	}
	return ""
}

func isTopicNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// allowList says which topics rows may be routed to. Whoever may insert into
// the outbox chooses the topic, so without a list they could write wherever
// the relay may.
type allowList struct {
	exact    []string
	prefixes []string // without their *
	reserved []cdc.Topic
}

// newAllowList reads routing.allowed_topics.
func newAllowList(allowed []string, reserved []cdc.Topic) (allowList, []error) {
	list := allowList{reserved: reserved}
	var problems []error
	if len(allowed) == 0 {
		problems = append(problems, invalid(`routing.allowed_topics is empty`, `list the topics that rows may go to, such as ["payment-event"]; "*" allows all`))
	}
	for _, pattern := range allowed {
		name, isPrefix := strings.CutSuffix(pattern, "*")
		why := topicNameProblem(name)
		if isPrefix && (name == "" || name == "." || name == "..") {
			why = ""
		}
		switch {
		case why != "":
			problems = append(problems, invalid(fmt.Sprintf("routing.allowed_topics: %q is no topic name: %s", pattern, why), "write an exact name, or a prefix that ends in *"))
		case isPrefix:
			list.prefixes = append(list.prefixes, name)
		case slices.Contains(reserved, cdc.Topic(name)):
			problems = append(problems, invalid(fmt.Sprintf("routing.allowed_topics: %q is the relay's own topic", name), "remove it from routing.allowed_topics"))
		default:
			list.exact = append(list.exact, name)
		}
	}
	return list, problems
}

// refusal says why rows may not be routed to the topic and what to do; empty
// when they may.
func (l allowList) refusal(name string) (why, fix string) {
	if why := topicNameProblem(name); why != "" {
		return "which is no valid topic name: " + why, "correct routing.topic, or the value in the row"
	}
	if slices.Contains(l.reserved, cdc.Topic(name)) {
		return "which is the relay's own topic", "correct routing.topic; no entry of routing.allowed_topics can allow this topic"
	}
	if slices.Contains(l.exact, name) || slices.ContainsFunc(l.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
		return "", ""
	}
	return "which routing.allowed_topics does not contain", fmt.Sprintf("add %q to routing.allowed_topics and restart", name)
}
