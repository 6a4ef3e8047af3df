package routing

import (
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	headerRawID   = "id"
	headerRawType = "type"
)

var rawOwnHeaders = []string{headerRawID, headerRawType}

// encodeRaw makes a record of the payload and the fewest headers: id, type
// where the table has one, the relay's own, then those of the row.
func (r *Router) encodeRaw(p *plan, row *cdc.Row) (content, error) {
	if row.Values[p.id] == nil {
		return content{}, badRow(row, fmt.Sprintf("has NULL in column %q, the event id", p.columnName(p.id)), "write the event id")
	}
	value, err := p.rawValue(row, p.payload)
	if err != nil {
		return content{}, err
	}
	headers := r.lent.roomForHeaders(4 + countRowHeaders(p, row))
	headers = append(headers, cdc.Header{Key: headerRawID, Value: row.Values[p.id]})
	if p.eventType >= 0 && row.Values[p.eventType] != nil {
		headers = append(headers, cdc.Header{Key: headerRawType, Value: row.Values[p.eventType]})
	}
	headers = append(headers,
		cdc.Header{Key: HeaderPosition, Value: appendPositionHeader(r.lent.roomForBytes(positionHeaderBytes), row.Position)},
		cdc.Header{Key: HeaderCommitTime, Value: r.commitTime.of(row.CommitTime)})
	headers, err = r.appendRowHeaders(headers, p, row, rawOwnHeaders)
	return content{value: value, headers: headers}, err
}
