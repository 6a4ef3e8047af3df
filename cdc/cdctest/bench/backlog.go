package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	payloadBytes = 272 // of the jsonb's text, as it travels
	writers      = 4   // connections that make a backlog
)

// shape is how the rows of a backlog are spread over transactions.
type shape struct {
	name string
	fill string // statements of a connection that makes n rows: %d
	// connections that fill at the same time.
	connections int
}

var (
	oneRowTransactions = shape{name: "one-row transactions", fill: "CALL bench_fill(%d)", connections: writers}
	oneTransaction     = shape{name: "one transaction", fill: "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) SELECT 'bench', 'key-' || i %% 1000, 'bench.row.v1', bench_payload() FROM generate_series(1, %d) i", connections: 1}
)

// helpers make rows on the server, so that the backlog does not wait for round trips.
func helpers() []string {
	const frame = `{"filler": ""}`
	filler := strings.Repeat("x", payloadBytes-len(frame))
	return []string{
		fmt.Sprintf(`CREATE FUNCTION bench_payload() RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT '{"filler": "%s"}'::jsonb $$`, filler),
		`CREATE PROCEDURE bench_fill(n int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN 1..n LOOP
				INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('bench', 'key-' || i % 1000, 'bench.row.v1', bench_payload());
				COMMIT;
			END LOOP;
		END $$`,
	}
}

// fill makes the backlog and returns the LSN that lies behind it.
func (b *bed) fill(ctx context.Context, database string, shape shape, rows int) (cdc.LSN, error) {
	if err := b.exec(ctx, database, helpers()...); err != nil {
		return 0, err
	}
	group, filling := errgroup.WithContext(ctx)
	for i := range shape.connections {
		n := rows / shape.connections
		if i == 0 {
			n += rows % shape.connections
		}
		group.Go(func() error {
			return b.exec(filling, database, "SET synchronous_commit = off", fmt.Sprintf(shape.fill, n))
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return b.flushedLSN(ctx, database)
}

// flushedLSN returns an LSN behind everything committed so far, once it is
// flushed: a walsender sends nothing that is not.
func (b *bed) flushedLSN(ctx context.Context, database string) (cdc.LSN, error) {
	conn, err := b.connect(ctx, database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, err
	}
	// A synchronous commit flushes what asynchronous ones left behind.
	if _, err := conn.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'bench', '')"); err != nil {
		return 0, err
	}
	return cdc.ParseLSN(text)
}
