package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// InsertOne commits one row of public.outbox that the ledger judges like those
// of its writers: seq rises from 1 within the key, and no writer uses the key.
// Who wants Ledger.Stop to wait for it adds it to the counts.
func InsertOne(ctx context.Context, conn *pgx.Conn, aggregateType, id, key string, seq int64) error {
	value, err := json.Marshal(payload{Key: key, Seq: seq, Tag: tagCommitted})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	_, err = conn.Exec(ctx, "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, $2, $3, 'ledger.row.v1', $4)",
		id, aggregateType, key, json.RawMessage(value))
	if err != nil {
		return fmt.Errorf("insert row %d of key %s: %w", seq, key, err)
	}
	return nil
}
