package cdctest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(holdVariable) != "" && os.Getenv("CDC_CDCTEST_ROLE") == "" {
		cdctest.RunRole()
		os.Exit(hold())
	}
	os.Exit(cdctest.Main(m))
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func scan[T any](t *testing.T, conn *pgx.Conn, sql string) (value T) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestPostgresKeepsDataOverAnImmediateRestart(t *testing.T) {
	p := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	port := p.Port()
	database := p.Database(t)
	conn := p.Connect(t, database)
	run(t, conn, "CREATE TABLE kept (n int)")
	run(t, conn, "INSERT INTO kept SELECT generate_series(1, 1000)")
	for _, mode := range []string{"immediate", "fast"} {
		p.Restart(t, mode)
		if p.Port() != port {
			t.Fatalf("port after restart = %d, want %d", p.Port(), port)
		}
		if got := scan[int](t, p.Connect(t, database), "SELECT count(*) FROM kept"); got != 1000 {
			t.Errorf("rows after %s restart = %d, want 1000", mode, got)
		}
	}
}

func TestSharedPostgres(t *testing.T) {
	p := cdctest.SharedPostgres(t)
	conn := p.Connect(t, p.Database(t))
	if got := scan[string](t, conn, "SHOW wal_level"); got != "logical" {
		t.Errorf("wal_level = %s, want logical", got)
	}
	if got, want := scan[int](t, conn, "SELECT current_setting('server_version_num')::int / 10000"), p.Major(); got != want {
		t.Errorf("server's major = %d, Major() = %d", got, want)
	}
	if again := cdctest.SharedPostgres(t); again.Port() != p.Port() {
		t.Errorf("second call: port %d, want %d", again.Port(), p.Port())
	}
}

func TestClustersHaveDifferentSystemIdentifiers(t *testing.T) {
	const query = "SELECT system_identifier::text FROM pg_control_system()"
	one := cdctest.SharedPostgres(t)
	other := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"wal_level": "replica"}})
	a, b := one.Connect(t, "postgres"), other.Connect(t, "postgres")
	if scan[string](t, a, query) == scan[string](t, b, query) {
		t.Error("two clusters have the same system identifier")
	}
	if got := scan[string](t, b, "SHOW wal_level"); got != "replica" {
		t.Errorf("wal_level = %s, want the configured replica", got)
	}
}

func TestRequirePassword(t *testing.T) {
	p := cdctest.SharedPostgres(t)
	const user, password = "with_password", `it's "secret"`
	p.RequirePassword(t, user, password)
	for name, dsn := range map[string]string{"tcp": p.DSN("postgres", user), "socket": p.SocketDSN("postgres", user)} {
		t.Run(name, func(t *testing.T) {
			cfg, err := pgx.ParseConfig(dsn)
			if err != nil {
				t.Fatal(err)
			}
			for _, try := range []struct{ password, code string }{{"wrong", "28P01"}, {password, ""}} {
				cfg.Password = try.password
				conn, err := pgx.ConnectConfig(context.Background(), cfg)
				code := ""
				if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
					code = pgErr.Code
				}
				if code != try.code || (err == nil) != (try.code == "") {
					t.Errorf("with password %q: %v, want code %q", try.password, err, try.code)
				}
				if err == nil {
					conn.Close(context.Background())
				}
			}
		})
	}
}

// TestDatabaseIsDroppedWithWhatUsesIt leaves a streaming slot, an idle session
// and a prepared transaction behind.
func TestDatabaseIsDroppedWithWhatUsesIt(t *testing.T) {
	p := cdctest.SharedPostgres(t)
	var database string
	t.Run("use", func(t *testing.T) {
		ctx := context.Background()
		database = p.Database(t)
		conn, err := pgx.Connect(ctx, p.DSN(database, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, "CREATE TABLE used (n int)")
		run(t, conn, "SELECT pg_create_logical_replication_slot('"+database+"', 'pgoutput')")
		run(t, conn, "BEGIN")
		run(t, conn, "INSERT INTO used VALUES (1)")
		run(t, conn, "PREPARE TRANSACTION 'left'")
		stream, err := pgconn.Connect(ctx, p.DSN(database, "postgres")+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		err = pglogrepl.StartReplication(ctx, stream, database, 0, pglogrepl.StartReplicationOptions{
			PluginArgs: []string{"proto_version '1'", "publication_names 'none'"},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	conn := p.Connect(t, "postgres")
	for _, query := range []string{
		"SELECT count(*) FROM pg_database WHERE datname = '" + database + "'",
		"SELECT count(*) FROM pg_replication_slots WHERE database = '" + database + "'",
	} {
		if got := scan[int](t, conn, query); got != 0 {
			t.Errorf("%s = %d after the test, want 0", query, got)
		}
	}
}

func TestAFailedStartShowsTheLogAndKeepsTheData(t *testing.T) {
	p := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	run(t, p.Connect(t, "postgres"), "CREATE TABLE kept ()")
	p.Stop(t, "fast")
	if err := p.Server().Configure(map[string]string{"no_such_setting": "1"}); err != nil {
		t.Fatal(err)
	}
	err := p.Server().Start(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("start with an unknown setting: %v, want its name from the log", err)
	}
	if err := p.Server().Configure(nil); err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	if !scan[bool](t, p.Connect(t, "postgres"), "SELECT to_regclass('kept') IS NOT NULL") {
		t.Error("the data is gone")
	}
}

func TestStandbyFollows(t *testing.T) {
	primary := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	standby := primary.StartStandby(t, nil)
	run(t, primary.Connect(t, "postgres"), "CREATE TABLE followed AS SELECT 1 AS n")
	conn := standby.Connect(t, "postgres")
	if !scan[bool](t, conn, "SELECT pg_is_in_recovery()") {
		t.Fatal("the standby is not in recovery")
	}
	eventually(t, "the standby has the table", func() bool {
		return scan[bool](t, conn, "SELECT to_regclass('followed') IS NOT NULL")
	})
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
