package routing

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestTopicNames(t *testing.T) {
	for _, name := range []string{"a", "payment-event", "A.b_C-9", "...", strings.Repeat("a", 249)} {
		if why := topicNameProblem(name); why != "" {
			t.Errorf("%q is refused: %s", name, why)
		}
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00", "a*", strings.Repeat("a", 250)} {
		if topicNameProblem(name) == "" {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestAllowedTopics(t *testing.T) {
	list, problems := newAllowList([]string{"payment-event", "order.*", "a*"}, []cdc.Topic{"order.position"})
	if problems != nil {
		t.Fatal(problems)
	}
	for name, allowed := range map[string]bool{
		"payment-event": true, "payment-event2": false, "my-payment-event": false,
		"order.": true, "order.created": true, "order": false, "my.order.created": false, "order.position": false,
		"a": true, "ab": true, "ba": false,
	} {
		if why, fix := list.refusal(name); (why == "") != allowed || (fix == "") != allowed {
			t.Errorf("%s: got %q, way out %q, want allowed %t", name, why, fix, allowed)
		}
	}
}
