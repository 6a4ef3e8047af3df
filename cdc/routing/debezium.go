package routing

import (
	"fmt"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// encodeDebezium makes a record as Debezium's Outbox Event Router does when
// no column is placed in an envelope: the payload alone is the value, header id
// is the event id, then the columns that are placed as headers, in their order.
// The headers column has no part in this format unless it is placed.
//
// Two things differ on purpose: the record's timestamp is the commit time where
// Debezium takes the time at which its connector saw the row, and Debezium's
// four context headers are not sent.
func (r *Router) encodeDebezium(p *plan, row *cdc.Row) (content, error) {
	if row.Values[p.id] == nil {
		return content{}, badRow(row, fmt.Sprintf("has NULL in column %q, the event id", p.columnName(p.id)), "write the event id")
	}
	value, err := p.connectValue(row, p.payload)
	if err != nil {
		return content{}, err
	}
	if r.debezium.tombstoneOnEmpty && p.typeOf(p.payload) != oidBytea && javaTrimIsEmpty(value) {
		value = nil
	}
	headers := r.lent.roomForHeaders(2 + len(p.placed))
	id, err := p.connectText(row, p.id)
	if err != nil {
		return content{}, err
	}
	headers = append(headers, cdc.Header{Key: headerRawID, Value: id})
	for _, placed := range p.placed {
		text, err := p.connectText(row, placed.column)
		if err != nil {
			return content{}, err
		}
		headers = append(headers, cdc.Header{Key: placed.name, Value: text})
	}
	if r.position {
		headers = append(headers, cdc.Header{Key: HeaderPosition, Value: appendPositionHeader(r.lent.roomForBytes(positionHeaderBytes), row.Position)})
	}
	return content{value: value, headers: headers}, nil
}

// javaTrimIsEmpty says whether nothing is left after String.trim, which cuts
// every character up to the blank. NULL is empty too.
func javaTrimIsEmpty(value []byte) bool {
	for _, c := range value {
		if c > ' ' {
			return false
		}
	}
	return true
}

// placedHeader is a column that becomes a header.
type placedHeader struct {
	name   string
	column int
}

// complete compiles the router's options for the plan's relation, all of whose
// required columns are there.
func (o *debeziumOptions) complete(p *plan) {
	p.id, p.payload = p.relation.Index(o.id), p.relation.Index(o.payload)
	check := func(column int, use string, convertible func(uint32) bool) {
		if typeOID := p.typeOf(column); p.bad == nil && !convertible(typeOID) {
			p.bad = &planProblem{
				what: fmt.Sprintf("is a row of %s.%s, whose column %q cannot be %s: its type (OID %d) has no conversion in this version", p.relation.Schema, p.relation.Name, p.columnName(column), use, typeOID),
				fix:  "use a column of a text, uuid, json, integer, boolean, bytea, date or timestamp type under routing.debezium",
			}
		}
	}
	check(p.id, "the header id", isConnectType)
	check(p.payload, "the value", isConnectType)
	for _, part := range p.key {
		if part.column >= 0 {
			check(part.column, "the key", isConnectType)
		}
	}
	for _, part := range p.topic {
		if part.column >= 0 {
			check(part.column, "route.by.field", isConnectString)
		}
	}
	if o.timestamp != "" {
		p.timestamp = p.relation.Index(o.timestamp)
		check(p.timestamp, "table.field.event.timestamp", func(typeOID uint32) bool { return typeOID == oidTimestamp || typeOID == oidTimestamptz })
	}
	for _, placement := range o.placements {
		column := p.relation.Index(placement.column)
		if column < 0 {
			continue // table.field.additional.missing is ignore, or the column would be required
		}
		check(column, "a header", isConnectType)
		p.placed = append(p.placed, placedHeader{name: placement.alias, column: column})
	}
}

// topicRoute is how the value of route.by.field becomes the topic.
type topicRoute struct {
	whole       *javaPattern // decides whether the value matches at all
	replacement javaReplacement
}

// route replaces the first match if the pattern matches the whole value, and
// else returns the value, as Debezium does.
func (t topicRoute) route(value string) string {
	if !t.whole.matches(value) {
		return value
	}
	match := t.whole.find(value)
	if match == nil {
		return value
	}
	var topic strings.Builder
	topic.WriteString(value[:match[0]])
	t.replacement.appendTo(&topic, value, match)
	topic.WriteString(value[match[1]:])
	return topic.String()
}
