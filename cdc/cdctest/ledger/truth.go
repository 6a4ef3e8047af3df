package ledger

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Truth reads what was committed, independently of the relay: the rows from the
// table, their order from a slot with the plugin test_decoding. Nobody may
// delete from the table while it is used.
type Truth struct {
	Table pgx.Identifier
	Slot  string
}

// Create makes the slot; only what is committed afterwards is judged.
func (t Truth) Create(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", t.Slot)
	if err != nil {
		return fmt.Errorf("create slot %s: %w", t.Slot, err)
	}
	return nil
}

// Read returns the committed transactions in commit order. It consumes nothing
// and may be called again. Rows of the table that the slot does not show, or
// the reverse, are an error: then there is no truth to judge by.
func (t Truth) Read(ctx context.Context, conn *pgx.Conn) ([]Transaction, error) {
	events, err := t.readRows(ctx, conn)
	if err != nil {
		return nil, err
	}
	parser, err := t.newParser(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT lsn::text, data FROM pg_logical_slot_peek_changes($1, NULL, NULL, 'include-xids', '1', 'skip-empty-xacts', '1')`, t.Slot)
	if err != nil {
		return nil, fmt.Errorf("peek at slot %s: %w", t.Slot, err)
	}
	defer rows.Close()
	for rows.Next() {
		var lsn, data string
		if err := rows.Scan(&lsn, &data); err != nil {
			return nil, fmt.Errorf("peek at slot %s: %w", t.Slot, err)
		}
		if err := parser.line(lsn, data); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("peek at slot %s: %w", t.Slot, err)
	}
	return join(parser.transactions, events)
}

// readRows returns the table's rows by id.
func (t Truth) readRows(ctx context.Context, conn *pgx.Conn) (map[string]Event, error) {
	rows, err := conn.Query(ctx, "SELECT id::text, aggregateid, (payload::text::json->>'seq')::bigint FROM "+t.Table.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", t.Table.Sanitize(), err)
	}
	events := map[string]Event{}
	var event Event
	_, err = pgx.ForEachRow(rows, []any{&event.ID, &event.Key, &event.Seq}, func() error {
		events[event.ID] = event
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", t.Table.Sanitize(), err)
	}
	return events, nil
}

// newParser knows the names under which the plugin shows the table: its own and
// those of its partitions.
func (t Truth) newParser(ctx context.Context, conn *pgx.Conn) (*decodingParser, error) {
	rows, err := conn.Query(ctx, `
		SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = $1::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree($1::regclass))`, t.Table.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("names of table %s: %w", t.Table.Sanitize(), err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("names of table %s: %w", t.Table.Sanitize(), err)
	}
	p := &decodingParser{tables: map[string]bool{}}
	for _, name := range names {
		p.tables[name] = true
	}
	return p, nil
}

// decodingParser reads the text that test_decoding writes. (PostgreSQL source,
// contrib/test_decoding.)
type decodingParser struct {
	tables       map[string]bool
	transactions []Transaction
	open         *Transaction
}

// line takes one change; lsn of a COMMIT is the transaction's end LSN.
func (p *decodingParser) line(lsn, data string) error {
	if rest, ok := strings.CutPrefix(data, "BEGIN "); ok {
		var xid cdc.XID
		if _, err := fmt.Sscan(rest, &xid); err != nil {
			return fmt.Errorf("test_decoding at %s: %q: %w", lsn, data, err)
		}
		p.open = &Transaction{XID: xid}
		return nil
	}
	if p.open == nil {
		return fmt.Errorf("test_decoding at %s: %q outside a transaction", lsn, data)
	}
	if strings.HasPrefix(data, "COMMIT") {
		end, err := cdc.ParseLSN(lsn)
		if err != nil {
			return err
		}
		if p.open.EndLSN = end; len(p.open.Events) > 0 {
			p.transactions = append(p.transactions, *p.open)
		}
		p.open = nil
		return nil
	}
	change, ok := strings.CutPrefix(data, "table ")
	if !ok {
		return nil
	}
	table, columns, ok := strings.Cut(change, ": INSERT: ")
	if !ok || !p.tables[table] {
		return nil
	}
	_, id, ok := strings.Cut(" "+columns, " id[uuid]:'")
	if !ok || len(id) < 36 {
		return fmt.Errorf("test_decoding at %s: no id in %q", lsn, data)
	}
	p.open.Events = append(p.open.Events, Event{ID: id[:36]})
	return nil
}

// join fills the transactions' events from the table.
func join(transactions []Transaction, events map[string]Event) ([]Transaction, error) {
	joined := 0
	for _, transaction := range transactions {
		for i := range transaction.Events {
			event, ok := events[transaction.Events[i].ID]
			if !ok {
				return nil, fmt.Errorf("row %s of transaction %d is in the WAL but not in the table", transaction.Events[i].ID, transaction.XID)
			}
			transaction.Events[i] = event
			joined++
		}
	}
	if joined != len(events) {
		return nil, fmt.Errorf("the table has %d rows, its WAL %d", len(events), joined)
	}
	return transactions, nil
}
