package routing

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Type OIDs of pg_catalog, which are the same in every database.
// (PostgreSQL source, pg_type.dat.)
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidJSON        = 114
	oidXML         = 142
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidUUID        = 2950
	oidJSONB       = 3802
	// oidFirstUser is where the types begin that users define.
	oidFirstUser = 16384
)

// plan is what the configuration means for one relation: columns by their
// index, -1 for one that the table does not have.
type plan struct {
	relation *cdc.Relation
	// bad says why no row of this relation can be routed; nil when they can.
	bad *planProblem

	id, aggregateID, eventType, payload, headers, createdAt int
	topic, key                                              []planPart
	contentType                                             []byte // of the payload, as its type suggests
	placed                                                  []placedHeader
	timestamp                                               int // format debezium: the column with the record's timestamp
}

// planPart is a literal, or a column where column is not negative.
type planPart struct {
	literal string
	column  int
}

type planProblem struct{ what, fix string }

func (p *plan) columnName(column int) string { return p.relation.Columns[column].Name }

func (p *plan) typeOf(column int) uint32 { return p.relation.Columns[column].TypeOID }

// planFor returns the plan of the row's relation.
func (r *Router) planFor(row *cdc.Row) (*plan, error) {
	p := r.plan
	if p == nil || p.relation != row.Relation {
		if p = r.plans[row.Relation]; p == nil {
			if len(r.plans) >= maxPlans {
				clear(r.plans)
			}
			p = r.newPlan(row.Relation)
			r.plans[row.Relation] = p
		}
		r.plan = p
	}
	if p.bad != nil {
		return nil, badRow(row, p.bad.what, p.bad.fix)
	}
	return p, nil
}

func (r *Router) newPlan(relation *cdc.Relation) *plan {
	p := &plan{
		relation:    relation,
		id:          relation.Index(r.columns[roleID]),
		aggregateID: relation.Index(r.columns[roleAggregateID]),
		eventType:   relation.Index(r.columns[roleType]),
		payload:     relation.Index(r.columns[rolePayload]),
		headers:     relation.Index(r.columns[roleHeaders]),
		createdAt:   relation.Index(r.columns[roleCreatedAt]),
		timestamp:   -1,
	}
	for _, name := range r.RequiredColumns() {
		if relation.Index(name) < 0 {
			p.bad = &planProblem{
				what: fmt.Sprintf("is a row of %s.%s, which has no column %q", relation.Schema, relation.Name, name),
				fix:  "add the column, or name the right one in postgres.columns or under routing",
			}
			return p
		}
	}
	p.topic, p.key = compile(r.topic, relation), compile(r.key, relation)
	if r.format == FormatDebezium {
		r.debezium.complete(p)
		return p
	}
	p.contentType = contentTypeOf(p.typeOf(p.payload))
	if r.isCloudEvents() && p.createdAt >= 0 && !slices.Contains([]uint32{oidTimestamptz, oidTimestamp, oidDate}, p.typeOf(p.createdAt)) {
		p.bad = &planProblem{
			what: fmt.Sprintf("is a row of %s.%s, whose column %q is no timestamp (its type has OID %d)", relation.Schema, relation.Name, p.columnName(p.createdAt), p.typeOf(p.createdAt)),
			fix:  "make it a timestamptz, or map created_at to another column in postgres.columns",
		}
	}
	return p
}

// compile replaces column names by indexes. All of them are required columns.
func compile(t template, relation *cdc.Relation) []planPart {
	parts := make([]planPart, len(t.parts))
	for i, part := range t.parts {
		parts[i] = planPart{literal: part.literal, column: -1}
		if part.column != "" {
			parts[i].column = relation.Index(part.column)
		}
	}
	return parts
}

// rawValue returns the column's value: the text that Postgres prints, or the
// bytes of a bytea. Nil is NULL.
func (p *plan) rawValue(row *cdc.Row, column int) ([]byte, error) {
	value := row.Values[column]
	if value == nil || p.typeOf(column) != oidBytea {
		return value, nil
	}
	if len(value) < 2 || value[0] != '\\' || value[1] != 'x' {
		return nil, badRow(row, fmt.Sprintf("has a bytea in column %q that is not in hex form", p.columnName(column)), "report this: the relay pins bytea_output=hex")
	}
	decoded := make([]byte, hex.DecodedLen(len(value)-2))
	if _, err := hex.Decode(decoded, value[2:]); err != nil {
		return nil, badRow(row, fmt.Sprintf("has a bytea in column %q that is not in hex form: %v", p.columnName(column), err), "report this: the relay pins bytea_output=hex")
	}
	return decoded, nil
}
