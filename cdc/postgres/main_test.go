package postgres

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// patience is how long a test waits for what has to come, on a machine that may be
// busy with much else.
const patience = time.Minute

// longSender is the wal_sender_timeout of a fixture's database. Most tests send no
// status, and the server must not end their streams for that; nor is it so long that
// check would warn of it.
const longSender = 50 * time.Second

// fixture is a database with an outbox, a publication and a slot of its own.
type fixture struct {
	server   *cdctest.Postgres
	database string
	sql      *pgx.Conn // a superuser's
	cfg      Config
}

const plainOutbox = `CREATE TABLE public.outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL DEFAULT 'payment',
	aggregateid text NOT NULL DEFAULT '1', type text NOT NULL DEFAULT 't', payload text)`

// newFixture makes the outbox of the shared server and, with slot, the whole setup.
func newFixture(t *testing.T, server *cdctest.Postgres) *fixture {
	t.Helper()
	f := &fixture{server: server, database: server.Database(t)}
	f.sql = server.Connect(t, f.database)
	f.cfg = Config{
		DSN:  func() (string, error) { return server.DSN(f.database, "relay_under_test"), nil },
		Slot: "slot_" + f.database, Publication: `pub "of" it's`, Table: "public.outbox",
		RequiredColumns: []string{"id", "aggregatetype", "aggregateid", "type", "payload"},
		GuardInterval:   20 * time.Millisecond,
		ConnectTimeout:  patience,
	}
	f.exec(t, `ALTER DATABASE `+f.database+` SET wal_sender_timeout = '`+longSender.String()+`'`)
	f.exec(t, `DO $$ BEGIN CREATE ROLE relay_under_test LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN NULL; WHEN unique_violation THEN NULL; END $$`)
	return f
}

// ready makes table, publication and slot.
func ready(t *testing.T, server *cdctest.Postgres) *fixture {
	t.Helper()
	f := newFixture(t, server)
	f.exec(t, plainOutbox)
	f.publish(t)
	f.slot(t)
	return f
}

func (f *fixture) publish(t *testing.T) {
	t.Helper()
	f.exec(t, `CREATE PUBLICATION `+quoteIdentifier(f.cfg.Publication)+` FOR TABLE `+quoteTable(f.cfg.Table)+` WITH (publish = 'insert', publish_via_partition_root = true)`)
}

func (f *fixture) slot(t *testing.T) {
	t.Helper()
	f.exec(t, `SELECT pg_create_logical_replication_slot('`+f.cfg.Slot+`', 'pgoutput')`)
}

func (f *fixture) exec(t *testing.T, text string, args ...any) {
	t.Helper()
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := f.sql.Exec(context.Background(), text, args...); err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
}

func (f *fixture) source(t *testing.T) *Source {
	t.Helper()
	source, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func (f *fixture) attach(t *testing.T) *stream {
	t.Helper()
	s, err := f.source(t).Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(*stream)
}

// free waits until nobody streams from the slot: a stream that was closed while the
// server had no time for it leaves before.
func (f *fixture) free(t *testing.T) {
	t.Helper()
	await(t, "the slot is free", func() bool {
		var active bool
		err := f.sql.QueryRow(t.Context(), `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, f.cfg.Slot).Scan(&active)
		return err == nil && !active
	})
}

// next returns the next message that is no keepalive. While it waits it keeps the
// stream alive.
func next(t *testing.T, s *stream) *cdc.Message {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		m, err := s.Receive(time.Now().Add(s.interval))
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		if m == nil {
			if err := s.Status(0, false); err != nil {
				t.Fatalf("status: %v", err)
			}
			continue
		}
		if m.Kind != cdc.MessageKeepalive {
			return m
		}
	}
	t.Fatal("nothing came")
	return nil
}

// transaction returns the rows of the next transaction with rows.
func transaction(t *testing.T, s *stream) []cdc.Row {
	t.Helper()
	var rows []cdc.Row
	for {
		switch m := next(t, s); m.Kind {
		case cdc.MessageInsert:
			rows = append(rows, m.Row.Clone())
		case cdc.MessageCommit:
			if len(rows) > 0 {
				return rows
			}
		}
	}
}

func payloads(rows []cdc.Row) []string {
	out := make([]string, len(rows))
	for i := range rows {
		value, _ := rows[i].Value("payload")
		out[i] = string(value)
		if value == nil {
			out[i] = "NULL"
		}
	}
	return out
}

func wantPayloads(t *testing.T, rows []cdc.Row, want ...string) {
	t.Helper()
	if got := payloads(rows); !slices.Equal(got, want) {
		t.Fatalf("payloads %q, want %q", got, want)
	}
}

// failure receives until the stream ends.
func failure(t *testing.T, s *stream) *cdc.Problem {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if _, err := s.Receive(deadline); err != nil {
			p, ok := errors.AsType[*cdc.Problem](err)
			if !ok {
				t.Fatalf("no Problem: %v", err)
			}
			return p
		}
	}
	t.Fatal("the stream did not end")
	return nil
}

func wantProblem(t *testing.T, err error, treatment cdc.Treatment, reason cdc.HaltReason, what string) {
	t.Helper()
	p, ok := errors.AsType[*cdc.Problem](err)
	if !ok {
		t.Fatalf("want a Problem with %q, got %v", what, err)
	}
	if p.Treatment != treatment || p.Reason != reason || !strings.Contains(p.Error(), what) {
		t.Errorf("got treatment %d, reason %q: %v\nwant treatment %d, reason %q, text %q", p.Treatment, p.Reason, p, treatment, reason, what)
	}
	if p.Fix == "" {
		t.Errorf("no way out in %v", p)
	}
}
