package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Table is the outbox table: schema.table, or table alone to go by the
// search_path. The names are taken literally, so upper case stays.
type Table string

// DefaultTable is where Insert and InsertSQL write.
const DefaultTable Table = "public.outbox"

// Insert writes the event to the default table within tx and returns its id.
func Insert(ctx context.Context, tx pgx.Tx, event Event) (uuid.UUID, error) {
	return DefaultTable.Insert(ctx, tx, event)
}

// InsertSQL is Insert for database/sql, with the driver of pgx or lib/pq.
func InsertSQL(ctx context.Context, tx *sql.Tx, event Event) (uuid.UUID, error) {
	return DefaultTable.InsertSQL(ctx, tx, event)
}

// Insert writes the event to the table within tx and returns its id.
func (t Table) Insert(ctx context.Context, tx pgx.Tx, event Event) (uuid.UUID, error) {
	statement, args, id, err := t.statement(event)
	if err != nil {
		return uuid.UUID{}, err
	}
	if mode, ok := describedMode(tx); ok {
		args = append([]any{mode}, args...)
	}
	if _, err := tx.Exec(ctx, statement, args...); err != nil {
		return uuid.UUID{}, fmt.Errorf("insert event %s into %s: %w", id, t, err)
	}
	return id, nil
}

// InsertSQL is Insert for database/sql, with the driver of pgx or lib/pq.
func (t Table) InsertSQL(ctx context.Context, tx *sql.Tx, event Event) (uuid.UUID, error) {
	statement, args, id, err := t.statement(event)
	if err != nil {
		return uuid.UUID{}, err
	}
	if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
		return uuid.UUID{}, fmt.Errorf("insert event %s into %s: %w", id, t, err)
	}
	return id, nil
}

// describedMode replaces the modes in which pgx does not ask the server for the
// types of parameters and takes every []byte for a bytea: a jsonb column would
// refuse such a payload. It uses the unnamed statement only, which poolers that
// made somebody choose those modes allow within a transaction.
func describedMode(tx pgx.Tx) (pgx.QueryExecMode, bool) {
	conn := tx.Conn()
	if conn == nil {
		return 0, false
	}
	switch conn.Config().DefaultQueryExecMode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return pgx.QueryExecModeDescribeExec, true
	default:
		return 0, false
	}
}

// statement returns the INSERT with its arguments. Payloads are []byte: with
// the column's type known, the drivers send them as text to jsonb, json and
// text, and as they are to bytea.
func (t Table) statement(event Event) (text string, args []any, id uuid.UUID, err error) {
	name, err := t.quoted()
	if err != nil {
		return "", nil, uuid.UUID{}, err
	}
	id = event.ID
	if id == (uuid.UUID{}) {
		if id, err = uuid.NewV7(); err != nil {
			return "", nil, uuid.UUID{}, fmt.Errorf("make an event id: %w", err)
		}
	}
	if err := event.validate(); err != nil {
		return "", nil, uuid.UUID{}, fmt.Errorf("event %s for %s: %w", id, t, err)
	}
	columns := []string{"id", "aggregatetype", "aggregateid", "type", "payload"}
	args = []any{id.String(), event.AggregateType, event.AggregateID, event.Type, nil}
	if event.Payload != nil {
		args[len(args)-1] = event.Payload
	}
	if len(event.Headers) > 0 {
		headers, err := json.Marshal(event.Headers)
		if err != nil {
			return "", nil, uuid.UUID{}, fmt.Errorf("event %s for %s: headers: %w", id, t, err)
		}
		columns, args = append(columns, "headers"), append(args, string(headers))
	}
	if !event.CreatedAt.IsZero() {
		columns, args = append(columns, "created_at"), append(args, event.CreatedAt)
	}
	var insert strings.Builder
	insert.WriteString("INSERT INTO " + name + " (" + strings.Join(columns, ", ") + ") VALUES (")
	for i := range args {
		if i > 0 {
			insert.WriteString(", ")
		}
		insert.WriteString("$" + strconv.Itoa(i+1))
	}
	insert.WriteString(")")
	return insert.String(), args, id, nil
}

// quoted returns the table's name for a statement.
func (t Table) quoted() (string, error) {
	parts := strings.Split(string(t), ".")
	if len(parts) > 2 || parts[0] == "" || parts[len(parts)-1] == "" {
		return "", fmt.Errorf("outbox table %q: want schema.table", string(t))
	}
	return pgx.Identifier(parts).Sanitize(), nil
}
