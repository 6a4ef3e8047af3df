package notifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// Slack's limits of one message, in characters.
const (
	maxHeaderRunes = 150
	maxFieldRunes  = 2000
	maxTextRunes   = 3000
)

// Message is the body of an incoming webhook.
type Message struct {
	Text        string  `json:"text"` // what a notification shows; the blocks replace it in the channel
	Blocks      []Block `json:"blocks"`
	UnfurlLinks bool    `json:"unfurl_links"`
	UnfurlMedia bool    `json:"unfurl_media"`
}

// Block is one block of Block Kit: a header, a section with fields, or a context.
type Block struct {
	Type     string `json:"type"`
	Text     *Text  `json:"text,omitempty"`
	Fields   []Text `json:"fields,omitempty"`
	Elements []Text `json:"elements,omitempty"`
}

// Text is a text object of Block Kit.
type Text struct {
	Type string `json:"type"` // plain_text or mrkdwn
	Text string `json:"text"`
}

// JSON is what is posted.
func (m Message) JSON() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // escaped for Slack already
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Preview is the message as plain text without links.
func (m Message) Preview() string {
	var b strings.Builder
	for _, block := range m.Blocks {
		if block.Text != nil {
			fmt.Fprintf(&b, "%s\n", plainText(block.Text.Text))
		}
		for _, field := range block.Fields {
			label, value, _ := strings.Cut(plainText(field.Text), "\n")
			fmt.Fprintf(&b, "  %-12s %s\n", label, value)
		}
		for _, element := range block.Elements {
			fmt.Fprintf(&b, "  %s\n", plainText(element.Text))
		}
	}
	return b.String()
}

// plainText undoes what this package writes: bold labels, code, links and escapes.
func plainText(mrkdwn string) string {
	for {
		before, rest, found := strings.Cut(mrkdwn, "<")
		link, after, closed := strings.Cut(rest, ">")
		if !found || !closed {
			break
		}
		_, label, _ := strings.Cut(link, "|")
		mrkdwn = before + label + after
	}
	return strings.NewReplacer("*", "", "`", "", "&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(mrkdwn)
}

// messageOptions are what is not in the event.
type messageOptions struct {
	possiblyRepeated bool
	traceURL         string // {trace_id} is replaced; empty: no link
}

// newMessage tells one payment.
func newMessage(e *entry, options messageOptions) Message {
	headline := "Payment completed"
	if e.payment.Status == event.StatusFailed {
		headline = "Payment failed"
	}
	if options.possiblyRepeated {
		headline += " (possibly repeated)"
	}
	amount := formatAmount(e.payment.Amount)
	fields := []Text{
		field("Amount", escape(amount, maxFieldRunes/2)),
		field("Reservation", code(e.payment.ReservationID)),
		field("Payment", code(e.payment.PaymentID)),
		field("Time", e.payment.ExecutedAt.UTC().Format("2006-01-02 15:04:05 MST")),
	}
	text := fmt.Sprintf("%s: %s for reservation %s", headline, amount, e.payment.ReservationID)
	if e.payment.FailureCode != "" {
		reason := failureText(e.payment.FailureCode)
		fields = append(fields, field("Reason", escape(reason, maxFieldRunes/2)))
		text += ": " + reason
	}
	if options.traceURL != "" && e.traceID != "" {
		link := strings.ReplaceAll(options.traceURL, "{trace_id}", e.traceID)
		fields = append(fields, field("Trace", "<"+escape(link, maxFieldRunes/2)+"|"+e.traceID+">"))
	}
	return Message{
		Text: escape(text, maxTextRunes),
		Blocks: []Block{
			{Type: "header", Text: &Text{Type: "plain_text", Text: escape(headline, maxHeaderRunes)}},
			{Type: "section", Fields: fields},
			{Type: "context", Elements: []Text{{Type: "mrkdwn", Text: "event " + code(e.idText) + " · " + escape(e.eventType, maxFieldRunes/2)}}},
		},
	}
}

func field(label, mrkdwn string) Text {
	return Text{Type: "mrkdwn", Text: "*" + label + "*\n" + mrkdwn}
}

// code shows data as code; a backtick in it would end the code.
func code(s string) string {
	return "`" + escape(strings.ReplaceAll(s, "`", "'"), maxFieldRunes/2) + "`"
}

// failureText is a failure code for people.
func failureText(c event.FailureCode) string {
	switch c {
	case event.FailureNotOwner:
		return "the reservation belongs to another user"
	case event.FailureExpired:
		return "the reservation has expired"
	case event.FailureAlreadyPaid:
		return "the reservation is already paid"
	case event.FailureCancelled:
		return "the reservation was cancelled"
	case event.FailureInsufficientBalance:
		return "the balance is insufficient"
	case event.FailureInternal:
		return "internal error; nothing was charged"
	default:
		return string(c) // a code that a newer version of the type added
	}
}

// escape makes data harmless in mrkdwn, where <, > and & begin links, mentions
// and entities, and cuts it to a number of characters without splitting an
// escape.
func escape(s string, maxRunes int) string {
	var b strings.Builder
	size := 0
	for rest := strings.ToValidUTF8(s, "\uFFFD"); rest != ""; {
		r, width := utf8.DecodeRuneInString(rest)
		piece := rest[:width]
		rest = rest[width:]
		switch r {
		case '&':
			piece = "&amp;"
		case '<':
			piece = "&lt;"
		case '>':
			piece = "&gt;"
		}
		size += utf8.RuneCountInString(piece)
		if size > maxRunes || size == maxRunes && rest != "" {
			b.WriteString("…")
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

// SampleMessage is what send-test posts.
func SampleMessage(destination string) Message {
	return Message{
		Text: "Test message of the payment notifier",
		Blocks: []Block{
			{Type: "header", Text: &Text{Type: "plain_text", Text: "Test message"}},
			{Type: "section", Text: &Text{Type: "mrkdwn", Text: "The payment notifier can post here. Destination: " + code(destination)}},
		},
	}
}
