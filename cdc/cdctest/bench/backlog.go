package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	payloadBytes    = 272 // of the jsonb's text, as it travels
	minPayloadBytes = 100
	writers         = 4 // connections that make a backlog
)

// shape is how the rows of a backlog are spread over transactions.
type shape struct {
	name string
	fill string // statement of a connection that makes rows: count, topics, bytes
	// connections that fill at the same time.
	connections int
}

var (
	oneRowTransactions = shape{name: "one-row transactions", fill: "CALL bench_fill(%d, %d, %d)", connections: writers}
	oneTransaction     = shape{name: "one transaction", connections: 1, fill: `INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
		SELECT 'bench-' || i %% t, 'key-' || i %% 1000, 'bench.row.v1', bench_payload(i, b) FROM (VALUES (%d, %d, %d)) AS v (n, t, b), generate_series(1, n) i`}
)

// helpers make rows on the server, so that the backlog does not wait for round
// trips. The payload is that of a payment, with ids that differ; what is longer
// has a filler of other digits in each row.
func helpers() []string {
	return []string{
		"CREATE TABLE bench_flush (n int)",
		`CREATE FUNCTION bench_uuid(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN md5($1)::uuid::text`,
		`CREATE FUNCTION bench_payload(i int, bytes int) RETURNS jsonb LANGUAGE plpgsql AS $$
		DECLARE
			full_row text := format('{"user_id": "%s", "status": "COMPLETED", "payment_id": "%s", "executed_at": "2026-01-01T00:00:00.%sZ", "reservation_id": "%s"',
				bench_uuid('u' || i % 1000), bench_uuid('p' || i), to_char(i % 1000000, 'FM000000'), bench_uuid('r' || i / 2));
			short_row text := format('{"payment_id": "%s"', bench_uuid('p' || i));
			body text := CASE WHEN bytes < 256 THEN short_row ELSE full_row END;
			room int := bytes - length(body) - length(', "filler": ""}');
		BEGIN
			RETURN (body || ', "filler": "' || left(repeat(md5(i::text), room / 32 + 1), room) || '"}')::jsonb;
		END $$`,
		`CREATE PROCEDURE bench_fill(n int, topics int, bytes int) LANGUAGE plpgsql AS $$
		BEGIN
			FOR i IN 1..n LOOP
				INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
				VALUES ('bench-' || i % topics, 'key-' || i % 1000, 'bench.row.v1', bench_payload(i, bytes));
				COMMIT;
			END LOOP;
		END $$`,
	}
}

// fill makes rows for as many topics and returns the backlog.
func (b *bed) fill(ctx context.Context, d database, shape shape, rows, topics, bytes int) (backlog, error) {
	group, filling := errgroup.WithContext(ctx)
	for i := range shape.connections {
		n := rows / shape.connections
		if i == 0 {
			n += rows % shape.connections
		}
		group.Go(func() error {
			return b.exec(filling, d.name, "SET synchronous_commit = off", fmt.Sprintf(shape.fill, n, topics, bytes))
		})
	}
	if err := group.Wait(); err != nil {
		return backlog{}, fmt.Errorf("make the backlog: %w", err)
	}
	end, err := b.flushedLSN(ctx, d.name)
	return backlog{shape: shape, rows: rows, bytes: bytes, end: end}, err
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
	if _, err := conn.Exec(ctx, "INSERT INTO bench_flush VALUES (1)"); err != nil {
		return 0, err
	}
	return cdc.ParseLSN(text)
}
