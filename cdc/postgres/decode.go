package postgres

import (
	"errors"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// decoder turns pgoutput messages of protocol version 1 into cdc.Messages.
// (PostgreSQL docs, "Logical Replication Message Formats".) It is pure but for
// the relations and the open transaction that it remembers, which is the
// protocol's own state.
type decoder struct {
	schema, table string
	tableOID      uint32 // 0 when not known
	idColumn      string

	relations map[uint32]*relation
	values    [][]byte // of the last row

	// The open transaction; open is false between COMMIT and BEGIN.
	open       bool
	xid        cdc.XID
	commitLSN  cdc.LSN
	commitTime time.Time
}

// relation is a relation message and what the decoder concluded from it.
type relation struct {
	*cdc.Relation
	outbox  bool
	idIndex int // -1: the table has no id column
}

func newDecoder(table string, tableOID uint32, idColumn string) *decoder {
	schema, name, _ := splitTable(table)
	return &decoder{schema: schema, table: name, tableOID: tableOID, idColumn: idColumn, relations: map[uint32]*relation{}}
}

// What the decoder says about messages that are no events.
const (
	ignoredUpdate     = "update"
	ignoredDelete     = "delete"
	ignoredTruncate   = "truncate"
	ignoredMessage    = "message"
	ignoredOrigin     = "origin"
	ignoredType       = "type"
	ignoredOtherTable = "other table"
)

var (
	errNoTransaction    = errors.New("row outside of a transaction")
	errInTransaction    = errors.New("BEGIN inside a transaction")
	errOtherCommit      = errors.New("COMMIT of another transaction than the open one")
	errUnknownRelation  = errors.New("row of a relation that was never described")
	errColumnCount      = errors.New("row has another number of columns than its relation")
	errUnchangedToast   = errors.New("insert with an unchanged TOAST value")
	errBinaryValue      = errors.New("value in binary format, which was not asked for")
	errUnknownValueKind = errors.New("unknown kind of value")
	errEmpty            = errors.New("message is empty")
)

// decode fills m from the payload of an XLogData and reports whether there is a
// message for the core; a relation message is none. A row references data and
// the decoder's memory: it is valid until the next call, and while data is.
func (d *decoder) decode(data []byte, m *cdc.Message) (bool, error) {
	*m = cdc.Message{}
	if len(data) == 0 {
		return false, errEmpty
	}
	w := wire{rest: data[1:]}
	switch data[0] {
	case 'I':
		return true, d.insert(&w, m)
	case 'B':
		return true, d.begin(&w, m)
	case 'C':
		return true, d.commit(&w, m)
	case 'R':
		return false, d.relation(&w)
	case 'U':
		return d.ignore(m, ignoredUpdate)
	case 'D':
		return d.ignore(m, ignoredDelete)
	case 'T':
		return d.ignore(m, ignoredTruncate)
	case 'M':
		return d.ignore(m, ignoredMessage)
	case 'O':
		return d.ignore(m, ignoredOrigin)
	case 'Y':
		return d.ignore(m, ignoredType)
	default:
		return false, fmt.Errorf("unknown message %q", data[0])
	}
}

func (d *decoder) ignore(m *cdc.Message, what string) (bool, error) {
	m.Kind, m.Ignored = cdc.MessageIgnored, what
	return true, nil
}

func (d *decoder) begin(w *wire, m *cdc.Message) error {
	commitLSN, commitTime, xid := w.lsn(), w.time(), cdc.XID(w.uint32())
	if err := w.done(); err != nil {
		return err
	}
	if d.open {
		return errInTransaction
	}
	d.open, d.xid, d.commitLSN, d.commitTime = true, xid, commitLSN, commitTime
	m.Kind, m.XID, m.CommitLSN, m.CommitTime = cdc.MessageBegin, xid, commitLSN, commitTime
	return nil
}

func (d *decoder) commit(w *wire, m *cdc.Message) error {
	w.uint8() // flags, unused
	commitLSN, endLSN, commitTime := w.lsn(), w.lsn(), w.time()
	if err := w.done(); err != nil {
		return err
	}
	if !d.open || commitLSN != d.commitLSN {
		return errOtherCommit
	}
	if endLSN <= commitLSN {
		return errLength
	}
	d.open = false
	m.Kind, m.XID, m.CommitLSN, m.EndLSN, m.CommitTime = cdc.MessageCommit, d.xid, commitLSN, endLSN, commitTime
	return nil
}

func (d *decoder) relation(w *wire) error {
	r := &cdc.Relation{OID: w.uint32(), Schema: w.text(), Name: w.text()}
	if r.Schema == "" {
		r.Schema = "pg_catalog" // sent as the empty string
	}
	w.uint8() // replica identity
	count := int(w.uint16())
	// A column takes at least 10 bytes, so a false count cannot make us allocate.
	if w.err == nil && count*10 > len(w.rest) {
		return errShort
	}
	r.Columns = make([]cdc.Column, count)
	for i := range r.Columns {
		w.uint8() // part of the replica identity
		r.Columns[i] = cdc.Column{Name: w.text(), TypeOID: w.uint32(), TypeModifier: int32(w.uint32())}
	}
	if err := w.done(); err != nil {
		return err
	}
	d.relations[r.OID] = &relation{
		Relation: r,
		// By oid the table stays known when it is renamed under way; by name the rows
		// of a table that was dropped and made again are not passed over.
		outbox:  r.OID == d.tableOID && d.tableOID != 0 || r.Schema == d.schema && r.Name == d.table,
		idIndex: r.Index(d.idColumn),
	}
	return nil
}

func (d *decoder) insert(w *wire, m *cdc.Message) error {
	oid, kind := w.uint32(), w.uint8()
	if w.err == nil && kind != 'N' {
		return errUnknownValueKind
	}
	if w.err == nil && !d.open {
		return errNoTransaction
	}
	r := d.relations[oid]
	if w.err == nil && r == nil {
		return errUnknownRelation
	}
	count := int(w.uint16())
	if w.err != nil {
		return w.err
	}
	if !r.outbox {
		_, err := d.ignore(m, ignoredOtherTable)
		return err
	}
	if count != len(r.Columns) {
		return errColumnCount
	}
	if err := d.row(w.rest, count, m); err != nil {
		return err
	}
	m.Kind, m.XID, m.CommitLSN, m.CommitTime = cdc.MessageInsert, d.xid, d.commitLSN, d.commitTime
	m.Row.CommitLSN, m.Row.XID, m.Row.CommitTime, m.Row.Relation = d.commitLSN, d.xid, d.commitTime, r.Relation
	if r.idIndex >= 0 {
		m.Row.EventID = m.Row.Values[r.idIndex]
	}
	return nil
}

// row makes the values of data, whose memory is the connection's.
func (d *decoder) row(data []byte, count int, m *cdc.Message) error {
	w := wire{rest: data}
	values := d.values[:0]
	for range count {
		switch w.uint8() {
		case 'n':
			values = append(values, nil)
		case 't':
			values = append(values, w.take(int(int32(w.uint32()))))
		case 'u':
			return firstError(w.err, errUnchangedToast)
		case 'b':
			return firstError(w.err, errBinaryValue)
		default:
			return firstError(w.err, errUnknownValueKind)
		}
		if w.err != nil {
			return w.err
		}
	}
	if err := w.done(); err != nil {
		return err
	}
	d.values = values
	m.Row.Values = values
	return nil
}

// firstError prefers the error that the reader met first.
func firstError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
