package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// cloudEvent is the structured form, and enough of a bare payload to tell it
// from one.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	TraceParent string          `json:"traceparent"`
	Data        json.RawMessage `json:"data"`
	Status      event.Status    `json:"status"`
}

// sampleEventID stands where a bare payload has no event id.
const sampleEventID = "00000000-0000-0000-0000-000000000000"

// Render makes the message of an event: a CloudEvent in structured mode, or the
// bare payload, whose type follows from its status.
func Render(content []byte, traceURL string) (Message, error) {
	var e cloudEvent
	if err := json.Unmarshal(content, &e); err != nil {
		return Message{}, fmt.Errorf("read event: %w", err)
	}
	if e.SpecVersion == "" {
		e.ID, e.Data, e.Type = sampleEventID, content, event.Payment{Status: e.Status}.Type()
	}
	entry, err := readEntry(&kgo.Record{Value: e.Data, Headers: []kgo.RecordHeader{
		{Key: headerID, Value: []byte(e.ID)}, {Key: headerType, Value: []byte(e.Type)}, {Key: headerTraceParent, Value: []byte(e.TraceParent)},
	}})
	if err != nil {
		return Message{}, fmt.Errorf("read event: %w", err)
	}
	return newMessage(entry, messageOptions{traceURL: traceURL}), nil
}

// SendTest posts the sample message once.
func SendTest(ctx context.Context, cfg SlackConfig) error {
	cfg = cfg.withDefaults()
	if err := errors.Join(cfg.validate()...); err != nil {
		return err
	}
	s := newSlack(cfg)
	defer s.close()
	if a := s.post(ctx, SampleMessage(cfg.Destination)); a.err != nil {
		return fmt.Errorf("post to %s: %w", cfg.Destination, a.err)
	}
	return nil
}
