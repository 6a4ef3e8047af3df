package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of InsertSQL

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/outbox"
)

// createOutbox makes the table and a role that may insert and nothing else.
func createOutbox(t *testing.T, conn *pgx.Conn, table, payloadType, more string) (role string) {
	t.Helper()
	role = "writer_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	for _, statement := range []string{
		fmt.Sprintf(`CREATE TABLE %s (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload %s%s)`, table, payloadType, more),
		`CREATE ROLE ` + role + ` LOGIN`,
		fmt.Sprintf(`GRANT INSERT ON %s TO %s`, table, role),
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, "DROP OWNED BY "+role); err != nil {
			t.Error(err)
		}
		if _, err := conn.Exec(ctx, "DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	return role
}

const sevenColumns = `, headers jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now()`

// inserter inserts an event as the role, in a transaction of its own.
type inserter struct {
	name   string
	insert func(t *testing.T, dsn string, table outbox.Table, event outbox.Event) (uuid.UUID, error)
}

func throughPgx(mode pgx.QueryExecMode) inserter {
	return inserter{"pgx in mode " + mode.String(), func(t *testing.T, dsn string, table outbox.Table, event outbox.Event) (id uuid.UUID, err error) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			id, err = table.Insert(t.Context(), tx, event)
			return err
		})
		return id, err
	}}
}

func throughSQL() inserter {
	return inserter{"database/sql", func(t *testing.T, dsn string, table outbox.Table, event outbox.Event) (uuid.UUID, error) {
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := table.InsertSQL(t.Context(), tx, event)
		if err != nil {
			_ = tx.Rollback()
			return id, err
		}
		return id, tx.Commit()
	}}
}

func inserters() []inserter {
	return []inserter{
		throughPgx(pgx.QueryExecModeCacheStatement), throughPgx(pgx.QueryExecModeCacheDescribe), throughPgx(pgx.QueryExecModeDescribeExec),
		throughPgx(pgx.QueryExecModeExec), throughPgx(pgx.QueryExecModeSimpleProtocol), throughSQL(),
	}
}

func TestInsertIntoEveryPayloadType(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	for _, payload := range []struct{ columnType, value, stored string }{
		{"jsonb", `{"b":"é\\","a":[1,2]}`, `{"a": [1, 2], "b": "é\\"}`},
		{"json", `{ "b" : 1 }`, `{ "b" : 1 }`},
		{"text", `\x00 'quoted' "é"`, `\x00 'quoted' "é"`},
		{"varchar(100)", ``, ``},
		{"bytea", "\x00\xff\\x41", `\x00ff5c783431`},
		{"bytea", "", `\x`},
	} {
		t.Run(payload.columnType+" "+payload.stored, func(t *testing.T) {
			database := postgres.Database(t)
			conn := postgres.Connect(t, database)
			role := createOutbox(t, conn, "public.outbox", payload.columnType, sevenColumns)
			for _, through := range inserters() {
				t.Run(through.name, func(t *testing.T) {
					createdAt := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.FixedZone("", 3600))
					id, err := through.insert(t, postgres.DSN(database, role), outbox.DefaultTable, outbox.Event{
						AggregateType: "payment", AggregateID: "r-17", Type: "payment.completed.v1", Payload: []byte(payload.value),
						Headers: map[string]string{"traceparent": "00-1", "quote": `"\é`}, CreatedAt: createdAt,
					})
					if err != nil {
						t.Fatal(err)
					}
					if id.Version() != 7 {
						t.Errorf("id %s has version %d, want 7", id, id.Version())
					}
					var got [5]string
					var headers map[string]string
					var stored time.Time
					if err := conn.QueryRow(t.Context(), `SELECT id::text, aggregatetype, aggregateid, type, payload::text, headers, created_at FROM public.outbox WHERE id = $1`, id.String()).
						Scan(&got[0], &got[1], &got[2], &got[3], &got[4], &headers, &stored); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff([5]string{id.String(), "payment", "r-17", "payment.completed.v1", payload.stored}, got); diff != "" {
						t.Errorf("row (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(map[string]string{"traceparent": "00-1", "quote": `"\é`}, headers); diff != "" {
						t.Errorf("headers (-want +got):\n%s", diff)
					}
					if !stored.Equal(createdAt) {
						t.Errorf("created_at is %s, want %s", stored, createdAt)
					}
				})
			}
		})
	}
}

func TestInsertIntoTheTableWithFiveColumns(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	database := postgres.Database(t)
	conn := postgres.Connect(t, database)
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA "My App"`); err != nil {
		t.Fatal(err)
	}
	role := createOutbox(t, conn, `"My App"."Outbox"`, "jsonb", "")
	if _, err := conn.Exec(t.Context(), `GRANT USAGE ON SCHEMA "My App" TO `+role); err != nil {
		t.Fatal(err)
	}
	own := uuid.MustParse("0198f0a0-7c11-7cc4-8f2e-1a2b3c4d5e6f")
	for _, through := range inserters() {
		t.Run(through.name, func(t *testing.T) {
			if _, err := conn.Exec(t.Context(), `DELETE FROM "My App"."Outbox"`); err != nil {
				t.Fatal(err)
			}
			id, err := through.insert(t, postgres.DSN(database, role), "My App.Outbox", outbox.Event{ID: own, AggregateType: "a", AggregateID: "b", Type: "c"})
			if err != nil || id != own {
				t.Fatalf("got %s, %v, want %s", id, err, own)
			}
			var tombstone bool
			if err := conn.QueryRow(t.Context(), `SELECT payload IS NULL FROM "My App"."Outbox" WHERE id = $1`, own.String()).Scan(&tombstone); err != nil || !tombstone {
				t.Errorf("got tombstone %t, %v", tombstone, err)
			}
		})
	}
}

func TestInsertLeavesDefaultsToTheTable(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	database := postgres.Database(t)
	conn := postgres.Connect(t, database)
	createOutbox(t, conn, "public.outbox", "jsonb", sevenColumns)
	var isDefault bool
	if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if _, err := outbox.Insert(t.Context(), tx, outbox.Event{AggregateType: "a", AggregateID: "b", Type: "c", Payload: []byte("{}")}); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), `SELECT headers = '{}' AND created_at = now() FROM public.outbox`).Scan(&isDefault)
	}); err != nil || !isDefault {
		t.Errorf("got defaults %t, %v", isDefault, err)
	}
}

func TestInsertIsPartOfTheTransaction(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	conn := postgres.Connect(t, postgres.Database(t))
	createOutbox(t, conn, "public.outbox", "jsonb", sevenColumns)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.Insert(t.Context(), tx, outbox.Event{AggregateType: "a", AggregateID: "b", Type: "c"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM public.outbox`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("got %d rows, %v, want none", rows, err)
	}
}

func TestInsertNamesWhatFailed(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	database := postgres.Database(t)
	role := createOutbox(t, postgres.Connect(t, database), "public.outbox", "jsonb", "")
	for _, through := range []inserter{throughPgx(pgx.QueryExecModeCacheStatement), throughSQL()} {
		t.Run(through.name, func(t *testing.T) {
			_, err := through.insert(t, postgres.DSN(database, role), outbox.DefaultTable, outbox.Event{AggregateType: "a", AggregateID: "b", Type: "c", Payload: []byte("{")})
			if err == nil || !strings.Contains(err.Error(), "insert event") || !strings.Contains(err.Error(), "public.outbox") {
				t.Errorf("got %v, want the event and the table", err)
			}
		})
	}
}
