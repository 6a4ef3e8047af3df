package routing

import (
	"fmt"
	"slices"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Names of headers. Kafka compares them byte by byte; the binding prescribes
// lower case. (CloudEvents "Kafka Protocol Binding", 3.2.)
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerSubject     = "ce_subject"
	headerTime        = "ce_time"
	headerSequence    = "ce_sequence"
	headerContentType = "content-type"
)

// cloudEventsOwnHeaders may not come from a row. Other names with ce_ may:
// they are extension attributes. content-type may too, since only the
// application knows what a bytea holds.
var cloudEventsOwnHeaders = []string{headerSpecVersion, headerID, headerSource, headerType, headerSubject, headerTime, headerSequence}

// Header values that many records share; nobody modifies them.
var (
	specVersion     = []byte("1.0")
	contentJSON     = []byte("application/json")
	contentText     = []byte("text/plain; charset=utf-8")
	contentBinary   = []byte("application/octet-stream")
	contentXML      = []byte("application/xml")
	contentEnvelope = []byte("application/cloudevents+json; charset=utf-8")
)

func contentTypeOf(typeOID uint32) []byte {
	switch typeOID {
	case oidJSON, oidJSONB:
		return contentJSON
	case oidBytea:
		return contentBinary
	case oidXML:
		return contentXML
	default:
		return contentText
	}
}

// encodeCloudEvent makes a record in binary mode.
func (r *Router) encodeCloudEvent(p *plan, row *cdc.Row) (content, error) {
	value, err := p.rawValue(row, p.payload)
	if err != nil {
		return content{}, err
	}
	headers, err := r.cloudEventHeaders(p, row)
	return content{value: value, headers: headers}, err
}

// cloudEventHeaders returns the attributes, the relay's own headers and those
// of the row. A tombstone has no content and so no content type of ours.
func (r *Router) cloudEventHeaders(p *plan, row *cdc.Row) ([]cdc.Header, error) {
	id, eventType := row.Values[p.id], row.Values[p.eventType]
	if len(id) == 0 || len(eventType) == 0 {
		return nil, badRow(row, fmt.Sprintf("has no value in column %q or %q; a CloudEvent needs both", p.columnName(p.id), p.columnName(p.eventType)), "write the values, or use another routing.format")
	}
	scratch := r.lent.roomForBytes(positionHeaderBytes + len(time.RFC3339Nano))
	scratch = appendPositionHeader(scratch, row.Position)
	position := scratch[:len(scratch):len(scratch)]
	eventTime, err := r.eventTime(scratch, p, row)
	if err != nil {
		return nil, err
	}
	headers := r.lent.roomForHeaders(10 + countRowHeaders(p, row))
	headers = append(headers,
		cdc.Header{Key: headerSpecVersion, Value: specVersion},
		cdc.Header{Key: headerID, Value: id},
		cdc.Header{Key: headerSource, Value: r.source},
		cdc.Header{Key: headerType, Value: eventType})
	if p.aggregateID >= 0 && len(row.Values[p.aggregateID]) > 0 {
		headers = append(headers, cdc.Header{Key: headerSubject, Value: row.Values[p.aggregateID]})
	}
	headers = append(headers,
		cdc.Header{Key: headerTime, Value: eventTime},
		cdc.Header{Key: headerSequence, Value: position})
	contentType := -1
	if row.Values[p.payload] != nil {
		contentType = len(headers)
		headers = append(headers, cdc.Header{Key: headerContentType, Value: p.contentType})
	}
	headers = append(headers,
		cdc.Header{Key: HeaderPosition, Value: position},
		cdc.Header{Key: HeaderCommitTime, Value: r.commitTime.of(row.CommitTime)})
	first := len(headers)
	if headers, err = r.appendRowHeaders(headers, p, row, cloudEventsOwnHeaders); err != nil {
		return nil, err
	}
	return withRowContentType(headers, first, contentType), nil
}

// withRowContentType lets the row's content type, at first or after it, take
// the place of the one that the column's type suggests.
func withRowContentType(headers []cdc.Header, first, ours int) []cdc.Header {
	if ours < 0 {
		return headers
	}
	for i := first; i < len(headers); i++ {
		if headers[i].Key == headerContentType {
			headers[ours].Value = headers[i].Value
			return slices.Delete(headers, i, i+1)
		}
	}
	return headers
}

// eventTime appends ce_time to scratch and returns it: created_at, or the
// commit time where the table or the row has none.
func (r *Router) eventTime(scratch []byte, p *plan, row *cdc.Row) ([]byte, error) {
	if p.createdAt < 0 || row.Values[p.createdAt] == nil {
		return r.commitTime.of(row.CommitTime), nil
	}
	created, err := r.createdAt.parse(row.Values[p.createdAt])
	if err != nil {
		return nil, badRow(row, fmt.Sprintf("has in column %q %v", p.columnName(p.createdAt), err), "write a time, or map created_at to another column in postgres.columns")
	}
	start := len(scratch)
	return r.eventTimes.append(scratch, created)[start:], nil
}
