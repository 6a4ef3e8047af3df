package sql_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/sql"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

func exec(t *testing.T, conn *pgx.Conn, text string, args ...any) {
	t.Helper()
	if len(args) == 0 { // several statements need the simple protocol
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := conn.Exec(t.Context(), text, args...); err != nil {
		t.Fatalf("%.120s: %v", text, err)
	}
}

func scan[T any](t *testing.T, conn *pgx.Conn, text string, args ...any) (value T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), text, args...).Scan(&value); err != nil {
		t.Fatalf("%.120s: %v", text, err)
	}
	return value
}

// migrated returns the database's name and a superuser's connection to it after
// all migrations ran, each of them twice.
func migrated(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	server := cdctest.SharedPostgres(t)
	database := server.Database(t)
	conn := server.Connect(t, database)
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, m := range migrations {
			if _, err := conn.Exec(t.Context(), m.SQL, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatalf("%s: %v", m.Name, err)
			}
		}
	}
	return database, conn
}

// at makes the first or last UUIDv7 of a moment.
func at(when time.Time, tail string) string {
	ms := fmt.Sprintf("%012x", when.UnixMilli())
	return ms[:8] + "-" + ms[8:] + "-" + tail
}

// farFromMidnight waits for the next day in UTC where this one ends too soon for
// a test that has to see one day only.
func farFromMidnight(t *testing.T) {
	t.Helper()
	now := time.Now()
	if left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now); left < time.Minute {
		cdctest.Pause(t, left+time.Second)
	}
}

const insertID = `INSERT INTO public.outbox (id, aggregatetype, aggregateid, type) VALUES ($1, 'payment', '1', 'x')`

func TestPartitionsTakeTheirUTCDay(t *testing.T) {
	farFromMidnight(t)
	_, conn := migrated(t)
	day := scan[time.Time](t, conn, `SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date`).UTC()
	partition := func(d time.Time) string { return "outbox_" + d.Format("20060102") }
	tests := []struct{ name, id, want string }{
		{"the first id of today", at(day, "7000-8000-000000000000"), partition(day)},
		{"the lowest bits of today", at(day, "0000-0000-000000000000"), partition(day)},
		{"the last id before midnight", at(day.AddDate(0, 0, 1).Add(-time.Millisecond), "7fff-bfff-ffffffffffff"), partition(day)},
		{"the first id of tomorrow", at(day.AddDate(0, 0, 1), "7000-8000-000000000000"), partition(day.AddDate(0, 0, 1))},
		{"the last day that was made", at(day.AddDate(0, 0, 14).Add(-time.Millisecond), "7fff-bfff-ffffffffffff"), partition(day.AddDate(0, 0, 13))},
		{"a day that nobody made", at(day.AddDate(0, 0, 14), "7000-8000-000000000000"), "outbox_default"},
		{"yesterday", at(day.Add(-time.Millisecond), "7fff-bfff-ffffffffffff"), "outbox_default"},
		{"an id that is no UUIDv7", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "outbox_default"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			exec(t, conn, insertID, test.id)
			if got := scan[string](t, conn, `SELECT tableoid::regclass::text FROM public.outbox WHERE id = $1`, test.id); got != test.want {
				t.Errorf("id %s lies in %s, want %s", test.id, got, test.want)
			}
		})
	}
}

func TestMakeDays(t *testing.T) {
	farFromMidnight(t)
	_, conn := migrated(t)
	day := scan[time.Time](t, conn, `SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date`).UTC()

	t.Run("is idempotent", func(t *testing.T) {
		if got := scan[int](t, conn, `SELECT public.outbox_make_days(14)`); got != 0 {
			t.Errorf("made %d days again", got)
		}
		if got := scan[int](t, conn, `SELECT public.outbox_make_days(16)`); got != 2 {
			t.Errorf("made %d days, want the 2 new ones", got)
		}
	})
	t.Run("leaves a day with rows in DEFAULT there and makes the others", func(t *testing.T) {
		exec(t, conn, insertID, at(day.AddDate(0, 0, 17), "7000-8000-000000000000"))
		if got := scan[int](t, conn, `SELECT public.outbox_make_days(20)`); got != 3 {
			t.Errorf("made %d days, want 3: days 16 to 19 without 17", got)
		}
		if got := scan[int](t, conn, `SELECT count(*) FROM public.outbox_default`); got != 1 {
			t.Errorf("DEFAULT has %d rows, want the one", got)
		}
	})
	t.Run("gives every partition key, checks and defaults of the parent", func(t *testing.T) {
		got := scan[int](t, conn, `SELECT count(*) FROM pg_inherits AS i
			WHERE inhparent = 'public.outbox'::regclass AND EXISTS (SELECT FROM pg_index WHERE indrelid = inhrelid AND indisprimary)
			AND (SELECT count(*) FROM pg_constraint WHERE conrelid = inhrelid AND contype = 'c') = 2`)
		if want := scan[int](t, conn, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.outbox'::regclass`); got != want {
			t.Errorf("%d of %d partitions have them", got, want)
		}
	})
}

func TestUUIDv7(t *testing.T) {
	_, conn := migrated(t)
	// The columns of a row are made from left to right: the clock before and after.
	rows, err := conn.Query(t.Context(), `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, public.outbox_uuidv7()::text,
		(extract(epoch FROM clock_timestamp()) * 1000000)::int8 FROM generate_series(1, 2000)`)
	if err != nil {
		t.Fatal(err)
	}
	var last string
	var text string
	var before, after int64
	if _, err = pgx.ForEachRow(rows, []any{&before, &text, &after}, func() error {
		id, err := uuid.Parse(text)
		if err != nil {
			return err
		}
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			return fmt.Errorf("%s has version %d, variant %s", id, id.Version(), id.Variant())
		}
		sec, nsec := id.Time().UnixTime()
		if micros := sec*1e6 + nsec/1e3; micros <= before-1000 || micros > after { // id.Time is whole milliseconds
			return fmt.Errorf("%s is of %d µs, made between %d and %d", id, micros, before, after)
		}
		if text[:18] < last { // the 60 bits of time
			return fmt.Errorf("%s came after %s", text, last)
		}
		last = text[:18]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestRowsThatNobodyCouldPublishAreRefused(t *testing.T) {
	_, conn := migrated(t)
	const insert = `INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload, headers) VALUES ('a', 'b', 'c', %s, %s)`
	for _, test := range []struct{ name, payload, headers, constraint string }{
		{"payload above 64 MiB", `to_jsonb(repeat('x', 67108865))`, `'{}'`, "outbox_payload_size"},
		{"headers that are no object", `'{}'`, `'[]'`, "outbox_headers_object"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := conn.Exec(t.Context(), fmt.Sprintf(insert, test.payload, test.headers))
			if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "23514" || pg.ConstraintName != test.constraint {
				t.Errorf("got %v, want a violation of %s", err, test.constraint)
			}
		})
	}
	exec(t, conn, fmt.Sprintf(insert, `NULL`, `DEFAULT`))
}

func TestRightsOfEachRole(t *testing.T) {
	database, conn := migrated(t)
	server := cdctest.SharedPostgres(t)
	exec(t, conn, `SELECT pg_create_logical_replication_slot('rights_of_each_role', 'pgoutput')`)
	const insert = `INSERT INTO public.outbox (aggregatetype, aggregateid, type) VALUES ('a', 'b', 'c')`
	exec(t, conn, insert)
	today := scan[string](t, conn, `SELECT 'public.outbox_' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD')`)
	tests := []struct {
		role, sql string
		allowed   bool
	}{
		{"payment_app", insert, true},
		{"payment_app", insert + ` RETURNING id`, false},
		{"payment_app", `SELECT id FROM public.outbox`, false},
		{"payment_app", `UPDATE public.outbox SET type = 'x'`, false},
		{"payment_app", `DELETE FROM public.outbox`, false},
		{"payment_app", `TRUNCATE public.outbox`, false},
		{"payment_app", `SELECT * FROM ` + today, false},
		{"payment_app", `SELECT public.outbox_make_days(1)`, false},
		{"payment_app", `INSERT INTO public.outbox_default (aggregatetype, aggregateid, type) VALUES ('a', 'b', 'c')`, false},
		{"cdc_relay", `SELECT id FROM public.outbox`, false},
		{"cdc_relay", insert, false},
		{"cdc_relay", `CREATE PUBLICATION p FOR TABLE public.outbox`, false},
		{"cdc_relay", `SELECT pg_replication_slot_advance('rights_of_each_role', pg_current_wal_lsn())`, true},
		{"cdc_relay", `SELECT pg_logical_emit_message(true, 'canary', '')`, true},
		{"outbox_auditor", `SELECT id FROM public.outbox`, true},
		{"outbox_auditor", insert, false},
		{"outbox_auditor", `DELETE FROM public.outbox`, false},
		{"outbox_maintainer", `SELECT public.outbox_make_days(18)`, true},
		{"outbox_maintainer", `DROP TABLE ` + today, true},
	}
	for _, test := range tests {
		t.Run(test.role+": "+test.sql, func(t *testing.T) {
			as, err := pgx.Connect(t.Context(), server.DSN(database, test.role))
			if err != nil {
				t.Fatal(err)
			}
			defer as.Close(t.Context())
			_, err = as.Exec(t.Context(), test.sql)
			refused := false
			if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
				refused = pg.Code == "42501"
			}
			if test.allowed && err != nil || !test.allowed && !refused {
				t.Errorf("allowed %v, got %v", test.allowed, err)
			}
		})
	}
	t.Run("cdc_relay streams", func(t *testing.T) {
		config, err := pgconn.ParseConfig(server.DSN(database, "cdc_relay"))
		if err != nil {
			t.Fatal(err)
		}
		config.RuntimeParams["replication"] = "database"
		relay, err := pgconn.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close(t.Context())
		if _, err := relay.Exec(t.Context(), `DROP_REPLICATION_SLOT rights_of_each_role`).ReadAll(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherTableWithAHostileNameWorks(t *testing.T) {
	farFromMidnight(t) // which may end the month
	server := cdctest.SharedPostgres(t)
	conn := server.Connect(t, server.Database(t))
	const table = `My "schema.out'box\"; DROP`
	schema, name, err := sql.SplitTable(table)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `CREATE SCHEMA `+pgx.Identifier{schema}.Sanitize())
	for _, make := range []func() (string, error){
		func() (string, error) { return sql.Outbox(table) },
		func() (string, error) { return sql.Roles(table) },
		func() (string, error) { return sql.Publication(`pub'"\`, table) },
	} {
		text, err := make()
		if err != nil {
			t.Fatal(err)
		}
		exec(t, conn, text)
		exec(t, conn, text)
	}
	quoted := pgx.Identifier{schema, name}.Sanitize()
	exec(t, conn, `INSERT INTO `+quoted+` (aggregatetype, aggregateid, type) VALUES ('a', 'b', 'c')`)
	if got := scan[string](t, conn, `SELECT tableoid::regclass::text FROM `+quoted); !strings.Contains(got, time.Now().UTC().Format("200601")) {
		t.Errorf("row lies in %s", got)
	}
	if got := scan[int](t, conn, `SELECT count(*) FROM pg_publication_tables WHERE pubname = $1 AND tablename = $2`, `pub'"\`, name); got != 1 {
		t.Errorf("publication has %d tables", got)
	}
}
