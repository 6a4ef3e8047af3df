package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// truthSlot is the slot that tells the order of the commits.
const truthSlot = "demo_truth"

// truth reads what was committed, independently of the relay: the rows from the
// table, their order from a slot with the plugin test_decoding.
type truth struct {
	dsn string

	mu   sync.Mutex // guards the fields below; held while the slot is read
	rows []committedRow
	last cdc.LSN // end LSN of the last transaction in rows
}

// create makes the slot; only what is committed afterwards is judged.
func (t *truth) create(ctx context.Context) error {
	return t.connected(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", truthSlot)
		return err
	})
}

// connected lends a connection of its own: between two reads Postgres may have
// been restarted.
func (t *truth) connected(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, t.dsn)
	if err != nil {
		return fmt.Errorf("connect to the outbox: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // only read from
	if err := do(conn); err != nil {
		return fmt.Errorf("slot %s: %w", truthSlot, err)
	}
	return nil
}

// read returns everything committed so far, in commit order. The slice is not
// changed later.
func (t *truth) read(ctx context.Context) ([]committedRow, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.connected(ctx, func(conn *pgx.Conn) error {
		ids, end, err := t.readOrder(ctx, conn)
		if err != nil || len(ids) == 0 {
			return err
		}
		rows, err := readRows(ctx, conn, ids)
		if err != nil {
			return err
		}
		t.rows, t.last = append(t.rows, rows...), end
		// A restart may lose this step back: t.last skips what comes again.
		_, err = conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, $2::pg_lsn)", truthSlot, end.String())
		return err
	})
	return slices.Clip(t.rows), err
}

// readOrder returns the ids of the rows committed after t.last, and the end LSN
// of the last of their transactions.
func (t *truth) readOrder(ctx context.Context, conn *pgx.Conn) ([]string, cdc.LSN, error) {
	rows, err := conn.Query(ctx, "SELECT lsn::text, data FROM pg_logical_slot_peek_changes($1, NULL, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')", truthSlot)
	if err != nil {
		return nil, 0, err
	}
	var ids, open []string
	end := t.last
	var lsnText, data string
	_, err = pgx.ForEachRow(rows, []any{&lsnText, &data}, func() error {
		switch {
		case strings.HasPrefix(data, "BEGIN"):
			open = nil
		case strings.HasPrefix(data, "COMMIT"):
			lsn, err := cdc.ParseLSN(lsnText)
			if err == nil && lsn > t.last {
				ids, end = append(ids, open...), lsn
			}
			return err
		default:
			if id, ok := insertedID(data); ok {
				open = append(open, id)
			}
		}
		return nil
	})
	return ids, end, err
}

// insertedID reads an insert into the outbox or one of its partitions, as
// test_decoding writes it. (PostgreSQL source, contrib/test_decoding.)
func insertedID(data string) (string, bool) {
	table, columns, ok := strings.Cut(strings.TrimPrefix(data, "table "), ": INSERT: ")
	if !ok || !strings.HasPrefix(strings.ReplaceAll(table, `"`, ""), "public.outbox") {
		return "", false
	}
	_, id, ok := strings.Cut(" "+columns, " id[uuid]:'")
	if !ok || len(id) < 36 {
		return "", false
	}
	return id[:36], true
}

// readRows returns the table's rows in the order of ids.
func readRows(ctx context.Context, conn *pgx.Conn, ids []string) ([]committedRow, error) {
	rows, err := conn.Query(ctx, "SELECT id::text, aggregateid, payload->>'payment_id' FROM public.outbox WHERE id = ANY($1::uuid[])", ids)
	if err != nil {
		return nil, err
	}
	byID := map[string]committedRow{}
	now := time.Now()
	var row committedRow
	if _, err := pgx.ForEachRow(rows, []any{&row.eventID, &row.key, &row.paymentID}, func() error {
		row.readAt = now
		byID[row.eventID] = row
		return nil
	}); err != nil {
		return nil, err
	}
	ordered := make([]committedRow, 0, len(ids))
	for _, id := range ids {
		row, ok := byID[id]
		if !ok {
			return nil, fmt.Errorf("row %s is in the WAL but not in the table", id)
		}
		ordered = append(ordered, row)
	}
	return ordered, nil
}

// count returns the number of rows in the table.
func (t *truth) count(ctx context.Context) (n int, err error) {
	err = t.connected(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM public.outbox").Scan(&n)
	})
	return n, err
}
