package notifier

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// The headers of a CloudEvents record in binary mode.
const (
	headerID          = "ce_id"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerTraceParent = "traceparent"
)

// The reasons of dead letters: the closed list.
const (
	reasonBadEventID  = "bad_event_id"  // ce_id is missing or no UUID
	reasonNoEventType = "no_event_type" // ce_type is missing
	reasonUndecodable = "undecodable"   // a known type whose payload breaks the contract
	reasonRejected    = "rejected"      // Slack refuses this message, whenever it comes
)

// entry is what a record says.
type entry struct {
	id        uuid.UUID // the key in the inbox
	idText    string    // as shown to people
	eventType string
	time      time.Time // ce_time, else the record's timestamp
	traceID   string    // of traceparent; empty without one
	payment   event.Payment
}

// unreadable is why a record can never become a message.
type unreadable struct {
	reason string
	err    error
}

func (u *unreadable) Error() string { return u.reason + ": " + u.err.Error() }
func (u *unreadable) Unwrap() error { return u.err }

// readEntry reads a record. The error is event.ErrUnknownType or an *unreadable;
// with the latter the entry still has an id.
func readEntry(record *kgo.Record) (*entry, error) {
	e := &entry{time: record.Timestamp}
	id, ceTime := "", ""
	for _, h := range record.Headers {
		switch h.Key {
		case headerID:
			id = string(h.Value)
		case headerType:
			e.eventType = string(h.Value)
		case headerTime:
			ceTime = string(h.Value)
		case headerTraceParent:
			e.traceID = traceID(string(h.Value))
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, ceTime); err == nil {
		e.time = at
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		// A name of its own, so that this record too is decided once.
		place := fmt.Sprintf("%s/%d/%d", record.Topic, record.Partition, record.Offset)
		e.id = uuid.NewSHA1(uuid.NameSpaceURL, []byte("kafka:"+place))
		e.idText = e.id.String()
		return e, &unreadable{reason: reasonBadEventID, err: fmt.Errorf("header %s of %s is no UUID", headerID, place)}
	}
	e.id, e.idText = parsed, parsed.String()
	if e.eventType == "" {
		return e, &unreadable{reason: reasonNoEventType, err: fmt.Errorf("no header %s", headerType)}
	}
	e.payment, err = event.Decode(e.eventType, record.Value)
	if errors.Is(err, event.ErrUnknownType) {
		return e, err
	}
	if err != nil {
		return e, &unreadable{reason: reasonUndecodable, err: err}
	}
	return e, nil
}

// traceID returns the trace id of a W3C traceparent, or nothing.
func traceID(traceparent string) string {
	parts := strings.Split(traceparent, "-")
	if len(parts) < 4 || len(parts[1]) != 32 || strings.Trim(parts[1], "0123456789abcdef") != "" {
		return ""
	}
	return parts[1]
}
