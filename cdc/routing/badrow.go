package routing

import (
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// maxQuotedBytes bounds what a message quotes from a row: whoever may insert
// chooses these values.
const maxQuotedBytes = 300

// badRow returns the problem of a row, naming the event and its position.
func badRow(row *cdc.Row, what, fix string) error {
	event := "an event without id"
	if row.EventID != nil {
		event = "event " + quoted(row.EventID)
	}
	return cdc.BadRow(fmt.Sprintf("%s at %s %s", event, row.Position, what), fix+"; where the committed row itself is at fault: on_bad_row: park, and start again")
}

// quoted prints a value from a row for people.
func quoted[T ~string | ~[]byte](value T) string {
	if len(value) > maxQuotedBytes {
		return fmt.Sprintf("%q...", value[:maxQuotedBytes])
	}
	return fmt.Sprintf("%q", value)
}

// invalid returns a problem of the configuration.
func invalid(what, fix string) error {
	return &cdc.Problem{Treatment: cdc.Setup, Reason: cdc.HaltSetup, What: what, Fix: fix}
}
