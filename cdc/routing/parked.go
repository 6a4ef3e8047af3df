package routing

import (
	"bytes"
	"strconv"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Headers of a record in the parked topic, beside the position and the commit
// time of its row. Every column but the payload is a header of its own, named
// with the prefix; SQL NULL is Kafka's null.
const (
	HeaderParkedReason       = "cdc-relay-parked-reason"
	HeaderParkedTable        = "cdc-relay-parked-table"
	HeaderParkedXID          = "cdc-relay-parked-xid"
	HeaderParkedColumnPrefix = "cdc-relay-column-"
)

// Park returns the record that tells of a bad row: its value is the payload as
// it would have been sent, its key the event id. It implements cdc.Parker. The
// commit time as timestamp would let an old row meet retention at once, so the
// caller may clear it. The record references the row and nothing of the router's.
func (r *Router) Park(row *cdc.Row, why *cdc.Problem) cdc.Record {
	payload := row.Relation.Index(r.columns[rolePayload])
	if r.format == FormatDebezium {
		payload = row.Relation.Index(r.debezium.payload)
	}
	record := cdc.Record{Topic: r.parkedTopic, Key: row.EventID, Placement: row.EventID, Position: row.Position, Timestamp: row.CommitTime}
	position := appendPositionHeader(nil, row.Position)
	if record.Placement == nil {
		record.Placement = position
	}
	record.Headers = append(make([]cdc.Header, 0, 5+len(row.Values)),
		cdc.Header{Key: HeaderPosition, Value: position},
		cdc.Header{Key: HeaderCommitTime, Value: bytes.Clone(r.commitTime.of(row.CommitTime))},
		cdc.Header{Key: HeaderParkedReason, Value: []byte(why.What)},
		cdc.Header{Key: HeaderParkedTable, Value: []byte(row.Relation.Schema + "." + row.Relation.Name)},
		cdc.Header{Key: HeaderParkedXID, Value: strconv.AppendUint(nil, uint64(row.XID), 10)})
	for i, value := range row.Values {
		if i != payload {
			record.Headers = append(record.Headers, cdc.Header{Key: HeaderParkedColumnPrefix + row.Relation.Columns[i].Name, Value: value})
			continue
		}
		record.Value = value
		p := plan{relation: row.Relation}
		if raw, err := p.rawValue(row, i); err == nil {
			record.Value = raw // a bytea as its bytes; else as Postgres printed it
		}
	}
	return record
}
