package postgres

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestInspectReportsTheFacts(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	source := f.source(t)
	facts, err := source.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(facts.SystemID) < 10 || facts.ServerVersion < minimumVersion || facts.InRecovery || facts.WALLevel != "logical" || facts.Timeline != 1 || facts.WALEnd == 0 {
		t.Errorf("server: %+v", facts)
	}
	slot := facts.Slot
	if slot == nil || slot.Name != f.cfg.Slot || slot.Plugin != "pgoutput" || slot.Database != f.database || slot.Active || slot.Lost() || slot.ConfirmedFlush == 0 || slot.Restart == 0 {
		t.Errorf("slot: %+v", slot)
	}
	p := facts.Publication
	if p == nil || p.Name != f.cfg.Publication || p.OID == 0 || p.XMin == 0 || p.RelOID == 0 || p.RelXMin == 0 || !p.ViaRoot || !p.PublishesInsert {
		t.Errorf("publication: %+v", p)
	}
	var oid uint32
	if err := f.sql.QueryRow(t.Context(), `SELECT 'public.outbox'::regclass::oid`).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	if facts.Table == nil || facts.Table.OID != oid || facts.Table.Name != "public.outbox" {
		t.Errorf("table: %+v, want oid %d", facts.Table, oid)
	}

	t.Run("again after its session was ended", func(t *testing.T) {
		f.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay_under_test' AND datname = $1`, f.database)
		if again, err := source.Inspect(t.Context()); err != nil || again.SystemID != facts.SystemID {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

func TestInspectFindsWhatForbidsToStream(t *testing.T) {
	const quoted = `"pub ""of"" it's"`
	tests := []struct {
		name, sql string
		cfg       func(*Config)
		reason    cdc.HaltReason
		what      string
	}{
		{"publication missing", `DROP PUBLICATION ` + quoted, nil, cdc.HaltStreamChanged, "does not exist in database"},
		{"table missing", `DROP TABLE outbox`, nil, cdc.HaltStreamChanged, "table public.outbox does not exist"},
		{"table not in the publication", `ALTER PUBLICATION ` + quoted + ` DROP TABLE outbox`, nil, cdc.HaltStreamChanged, "does not contain table"},
		{"no inserts", `ALTER PUBLICATION ` + quoted + ` SET (publish = 'delete')`, nil, cdc.HaltStreamChanged, "does not publish inserts"},
		{"not via root", `DROP TABLE outbox; CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text, payload text) PARTITION BY RANGE (id);
			ALTER PUBLICATION ` + quoted + ` ADD TABLE outbox; ALTER PUBLICATION ` + quoted + ` SET (publish_via_partition_root = false)`, nil, cdc.HaltStreamChanged, "partition root"},
		{"columns missing", `ALTER TABLE outbox DROP COLUMN payload; ALTER TABLE outbox RENAME type TO kind`, nil, cdc.HaltStreamChanged, "no column type, payload"},
		{"a view", `DROP TABLE outbox; CREATE VIEW outbox AS SELECT 1`, nil, cdc.HaltStreamChanged, "is no table"},
		{"unlogged", `DROP TABLE outbox; CREATE UNLOGGED TABLE outbox (id uuid)`, nil, cdc.HaltStreamChanged, "unlogged"},
		{"slot of another plugin", `SELECT pg_drop_replication_slot('SLOT'); SELECT pg_create_logical_replication_slot('SLOT', 'test_decoding')`, nil, cdc.HaltSlotLost, "test_decoding"},
		{"two-phase slot", `SELECT pg_drop_replication_slot('SLOT'); SELECT pg_create_logical_replication_slot('SLOT', 'pgoutput', false, true)`, nil, cdc.HaltSlotLost, "two_phase"},
		{"temporary slot", `SELECT pg_drop_replication_slot('SLOT'); SELECT pg_create_logical_replication_slot('SLOT', 'pgoutput', true)`, nil, cdc.HaltSlotLost, "temporary"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := ready(t, cdctest.SharedPostgres(t))
			f.exec(t, strings.ReplaceAll(test.sql, "SLOT", f.cfg.Slot))
			_, err := f.source(t).Inspect(t.Context())
			wantProblem(t, err, cdc.Setup, test.reason, test.what)
		})
	}

	t.Run("all of it at once", func(t *testing.T) {
		f := newFixture(t, cdctest.SharedPostgres(t))
		facts, err := f.source(t).Inspect(t.Context())
		if err == nil || !strings.Contains(err.Error(), "table public.outbox does not exist") || !strings.Contains(err.Error(), "publication") {
			t.Errorf("got %v", err)
		}
		if facts.Slot != nil || facts.Publication != nil || facts.Table != nil || facts.SystemID == "" {
			t.Errorf("facts %+v", facts)
		}
	})
	t.Run("slot of another database", func(t *testing.T) {
		f, other := ready(t, cdctest.SharedPostgres(t)), ready(t, cdctest.SharedPostgres(t))
		f.cfg.Slot = other.cfg.Slot
		_, err := f.source(t).Inspect(t.Context())
		wantProblem(t, err, cdc.Setup, cdc.HaltSlotLost, "belongs to database")
	})
	t.Run("a missing slot is no problem to Inspect, and slot-lost to Attach", func(t *testing.T) {
		f := ready(t, cdctest.SharedPostgres(t))
		f.exec(t, `SELECT pg_drop_replication_slot('`+f.cfg.Slot+`')`)
		source := f.source(t)
		if facts, err := source.Inspect(t.Context()); err != nil || facts.Slot != nil {
			t.Errorf("%+v, %v", facts.Slot, err)
		}
		_, err := source.Attach(t.Context())
		wantProblem(t, err, cdc.Setup, cdc.HaltSlotLost, "does not exist")
	})
	t.Run("publications of everything contain the table", func(t *testing.T) {
		f := ready(t, cdctest.SharedPostgres(t))
		f.exec(t, `DROP PUBLICATION `+quoted+`; CREATE PUBLICATION `+quoted+` FOR ALL TABLES WITH (publish = 'insert', publish_via_partition_root = true)`)
		facts, err := f.source(t).Inspect(t.Context())
		if err != nil || facts.Publication == nil || facts.Publication.RelOID != 0 {
			t.Errorf("%+v, %v", facts.Publication, err)
		}
		if facts.ServerVersion >= 150000 {
			f.exec(t, `DROP PUBLICATION `+quoted+`; CREATE PUBLICATION `+quoted+` FOR TABLES IN SCHEMA public WITH (publish = 'insert')`)
			facts, err = f.source(t).Inspect(t.Context())
			if err != nil || facts.Publication == nil || facts.Publication.RelOID == 0 {
				t.Errorf("%+v, %v", facts.Publication, err)
			}
		}
	})
}

func TestInspectClassifiesFailuresToConnect(t *testing.T) {
	server := cdctest.SharedPostgres(t)
	f := ready(t, server)
	const password = "s3cr3t-canary'\\"
	inspect := func(t *testing.T, dsn string) error {
		t.Helper()
		f.cfg.DSN = func() (string, error) { return dsn, nil }
		_, err := f.source(t).Inspect(t.Context())
		if err == nil {
			t.Fatal("no error")
		}
		if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("the password is in %v", err)
		}
		return err
	}
	at := func(port string) string {
		return "host=127.0.0.1 port=" + port + " user=relay_under_test dbname=" + f.database + ` password='` + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + `'`
	}
	own := strconv.Itoa(server.Port())

	t.Run("wrong password", func(t *testing.T) {
		server.RequirePassword(t, "relay_with_password", "the right one")
		wantProblem(t, inspect(t, strings.Replace(at(own), "relay_under_test", "relay_with_password", 1)), cdc.Retry, "", "28P01")
	})
	t.Run("no such role", func(t *testing.T) {
		wantProblem(t, inspect(t, strings.Replace(at(own), "relay_under_test", "nobody_by_that_name", 1)), cdc.Retry, "", "28000")
	})
	t.Run("no such database", func(t *testing.T) {
		wantProblem(t, inspect(t, strings.Replace(at(own), f.database, "no_such_database", 1)), cdc.Retry, "", "3D000")
	})
	t.Run("a role without REPLICATION", func(t *testing.T) {
		f.exec(t, `DO $$ BEGIN CREATE ROLE relay_without_replication LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
		wantProblem(t, inspect(t, strings.Replace(at(own), "relay_under_test", "relay_without_replication", 1)), cdc.Retry, "", "42501")
	})
	t.Run("nobody listens", func(t *testing.T) {
		_, port, _ := net.SplitHostPort(cdctest.Address(t))
		wantProblem(t, inspect(t, at(port)), cdc.Retry, "", "refused")
	})
	t.Run("an HTTP server", func(t *testing.T) {
		port := serve(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
		})
		wantProblem(t, inspect(t, at(port)), cdc.Setup, "", "not a Postgres server")
	})
	t.Run("an echo server", func(t *testing.T) {
		port := serve(t, func(conn net.Conn) {
			buf := make([]byte, 1024)
			n, _ := conn.Read(buf)
			_, _ = conn.Write(buf[:n])
		})
		wantProblem(t, inspect(t, at(port)), cdc.Setup, "", "not a Postgres server")
	})
	t.Run("a pooler that refuses the startup parameter", func(t *testing.T) {
		port := serve(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1024))
			refusal := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"}
			frame, _ := refusal.Encode(nil)
			_, _ = conn.Write(frame)
		})
		wantProblem(t, inspect(t, at(port)), cdc.Setup, "", "08P01")
	})
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f.cfg.DSN = func() (string, error) { return at(own), nil }
		if _, err := f.source(t).Inspect(ctx); err == nil || ctx.Err() == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
			t.Errorf("got %v", err)
		}
	})
}

// serve answers every connection once and closes it.
func serve(t *testing.T, answer func(net.Conn)) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port
}

func TestAServerWithoutLogicalWALAndThenInRecovery(t *testing.T) {
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"wal_level": "replica"}})
	f := newFixture(t, server)
	f.exec(t, plainOutbox)
	f.exec(t, `SET client_min_messages = error; CREATE PUBLICATION "pub ""of"" it's" FOR TABLE outbox WITH (publish = 'insert')`)
	source := f.source(t)
	_, err := source.Inspect(t.Context())
	wantProblem(t, err, cdc.Setup, "", "wal_level is replica")
	admin, err := NewAdmin(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.CreateSlot(t.Context(), SlotOptions{})
	wantProblem(t, err, cdc.Setup, "", "wal_level is replica")

	server.Stop(t, "fast")
	if _, err := source.Inspect(t.Context()); err == nil {
		t.Fatal("a stopped server was inspected")
	} else if p := cdc.AsProblem(err); p.Treatment != cdc.Retry || p.Fix == "" {
		t.Errorf("stopped server: %v", p)
	}
	signal := filepath.Join(server.DataDir(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
	facts, err := source.Inspect(t.Context())
	wantProblem(t, err, cdc.Retry, "", "in recovery")
	if !facts.InRecovery || facts.WALEnd == 0 {
		t.Errorf("facts %+v", facts)
	}
	server.Stop(t, "fast")
	if err := os.Remove(signal); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
}

func TestSessionsPrintValuesTheSameWhateverTheRoleSays(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, `CREATE TABLE outbox (id int, payload bytea, at timestamptz, d date, i interval, f float8)`)
	f.publish(t)
	f.slot(t)
	f.exec(t, `DO $$ BEGIN CREATE ROLE relay_of_odd_habits LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		ALTER ROLE relay_of_odd_habits SET bytea_output = 'escape'; ALTER ROLE relay_of_odd_habits SET DateStyle = 'German';
		ALTER ROLE relay_of_odd_habits SET TimeZone = 'Asia/Seoul'; ALTER ROLE relay_of_odd_habits SET IntervalStyle = 'iso_8601';
		ALTER ROLE relay_of_odd_habits SET extra_float_digits = 0`)
	f.cfg.RequiredColumns = nil
	f.cfg.DSN = func() (string, error) {
		return f.server.DSN(f.database, "relay_of_odd_habits") + "&options=-c%20TimeZone%3DAsia/Seoul%20-c%20bytea_output%3Descape", nil
	}
	s := f.attach(t)
	f.exec(t, `INSERT INTO outbox VALUES (1, '\x00ff', '2026-01-02 03:04:05.678901+00', '2026-01-02', '1 day 02:00', 0.1)`)
	row := transaction(t, s)[0]
	for column, want := range map[string]string{
		"payload": `\x00ff`, "at": "2026-01-02 03:04:05.678901+00", "d": "2026-01-02", "i": "1 day 02:00:00", "f": "0.1",
	} {
		if got, _ := row.Value(column); string(got) != want {
			t.Errorf("%s is %s, want %s", column, got, want)
		}
	}
}
