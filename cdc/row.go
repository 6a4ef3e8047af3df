package cdc

import (
	"bytes"
	"time"
)

// Relation describes the outbox table as the newest relation message of the
// stream does. A new message makes a new Relation, so a *Relation may serve as
// the key of a cache. It is never modified after it was made.
type Relation struct {
	OID     uint32 // of the root table, also when the row lives in a partition
	Schema  string
	Name    string
	Columns []Column
}

// Column is one column of a relation, in the order of the wire.
type Column struct {
	Name         string
	TypeOID      uint32
	TypeModifier int32 // atttypmod; -1 for none
}

// Index returns the place of the named column, or -1.
func (r *Relation) Index(name string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// Row is one insert into the outbox as decoded from the WAL.
type Row struct {
	Position
	XID        XID
	CommitTime time.Time // of the transaction, on the server's clock
	Relation   *Relation
	// Values has one element per column of Relation, in text format: nil is SQL
	// NULL, an empty non-nil slice is the empty string. Nobody modifies the bytes;
	// a row of the stream lends them until the next message is received.
	Values [][]byte
	// EventID is the value of the id column; nil when the table has none.
	EventID []byte
}

// Value returns the named column's text and whether the column exists; nil
// with true is SQL NULL.
func (r *Row) Value(name string) ([]byte, bool) {
	i := r.Relation.Index(name)
	if i < 0 {
		return nil, false
	}
	return r.Values[i], true
}

// Clone returns a row that lends nothing.
func (r *Row) Clone() Row {
	own := *r
	own.Values = make([][]byte, len(r.Values))
	for i, value := range r.Values {
		own.Values[i] = bytes.Clone(value)
	}
	own.EventID = bytes.Clone(r.EventID)
	return own
}

// Bytes is the size of all values, the row's share of memory.
func (r *Row) Bytes() int {
	n := 0
	for _, v := range r.Values {
		n += len(v)
	}
	return n
}
