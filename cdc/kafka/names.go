package kafka

import "github.com/cdc-relay/cdc-relay/cdc"

// maxTopicNameLength is Kafka's own limit: a longer name makes no directory.
const maxTopicNameLength = 249

// invalidTopicName says what is wrong with a name by Kafka's rules, or returns
// "". (org.apache.kafka.common.internals.Topic.) Asking a broker instead would
// take seconds and end as "unknown topic".
func invalidTopicName(topic cdc.Topic) string {
	switch {
	case topic == "":
		return "is empty"
	case topic == "." || topic == "..":
		return "is reserved by Kafka"
	case len(topic) > maxTopicNameLength:
		return "is longer than 249 characters"
	}
	for i := range len(topic) {
		c := topic[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' {
			continue
		}
		return "has a character other than letters, digits, '.', '_' and '-'"
	}
	return ""
}
