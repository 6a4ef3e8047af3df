package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Event is one row of the outbox.
type Event struct {
	// ID is what consumers know the event by; the zero ID has Insert make a UUIDv7.
	ID uuid.UUID
	// AggregateType is what the event is about; the relay derives the topic from it.
	AggregateType string
	// AggregateID is the record's key: the events of one key stay in order.
	AggregateID string
	// Type is the event's type, such as payment.completed.v1.
	Type string
	// Payload is JSON unless the column is text or bytea. Nil is a tombstone: a
	// record without value, which in a compacted topic deletes the key.
	Payload []byte
	// Headers become headers of the record.
	Headers map[string]string
	// CreatedAt is when the event happened; zero leaves it to the column's default.
	CreatedAt time.Time
}

// maxHeaders is how many the relay accepts.
const maxHeaders = 1000

// ownHeaders are those that the relay sets itself in its default format.
var ownHeaders = []string{"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_sequence"}

// validate returns all that is wrong with the event. What passes here and not
// in the relay would halt it for every event behind.
func (e *Event) validate() error {
	var problems []error
	for _, field := range []struct{ name, value string }{
		{"AggregateType", e.AggregateType}, {"AggregateID", e.AggregateID}, {"Type", e.Type},
	} {
		if field.value == "" {
			problems = append(problems, fmt.Errorf("%s is empty", field.name))
		}
	}
	if len(e.Headers) > maxHeaders {
		problems = append(problems, fmt.Errorf("%d headers, the relay accepts %d", len(e.Headers), maxHeaders))
	}
	for name := range e.Headers {
		switch {
		case name == "":
			problems = append(problems, errors.New("a header has no name"))
		case strings.HasPrefix(name, "cdc-relay-"), slices.Contains(ownHeaders, name):
			problems = append(problems, fmt.Errorf("the relay sets the header %q itself", name))
		}
	}
	return errors.Join(problems...)
}
