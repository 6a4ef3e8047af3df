package halts_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// patience bounds every wait for something that has to happen.
const patience = 30 * time.Second

// lifetime bounds how long a process may take until it ends or halts: some halts
// need ten starts, or the broker's time for a hanging transaction.
const lifetime = 2 * time.Minute

// bed is a relay that was initialised, the servers that it speaks to, and a
// person who may do everything there.
type bed struct {
	*relaytest.Environment
	db     *pgx.Conn          // superuser, in the relay's database
	config []string           // old and new texts that are replaced in the configuration
	seq    int                // of the last row written
	relay  *relaytest.Process // that runs, where one does
	// message is what the last halt said; commandsSeen are the keys of the command
	// records that its ways out have left.
	message      string
	commandsSeen []string
}

// newBed has shared servers.
func newBed(t *testing.T) *bed {
	t.Helper()
	return newBedOn(t, cdctest.SharedPostgres(t))
}

func newBedOn(t *testing.T, postgres *cdctest.Postgres) *bed {
	t.Helper()
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: postgres, Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t), Partitions: 3,
	})
	return &bed{Environment: e, db: postgres.Connect(t, e.Database)}
}

// exec runs SQL; several statements run one after the other, in one transaction.
func (b *bed) exec(t *testing.T, text string, args ...any) {
	t.Helper()
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := b.db.Exec(t.Context(), text, args...); err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
}

// replace changes a text of the configuration for all later lives.
func (b *bed) replace(t *testing.T, old, replacement string) {
	t.Helper()
	if !strings.Contains(b.Config(), old) {
		t.Fatalf("the configuration has no %q:\n%s", old, b.Config())
	}
	b.config = append(b.config, old, replacement)
	b.configure(t)
}

// configure writes the configuration anew.
func (b *bed) configure(t *testing.T) {
	t.Helper()
	text := strings.NewReplacer(b.config...).Replace(b.Config())
	if err := os.WriteFile(b.ConfigPath, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// moveTo points the relay, and the person, at another server.
func (b *bed) moveTo(t *testing.T, postgres *cdctest.Postgres) {
	t.Helper()
	b.Postgres = postgres
	b.db = postgres.Connect(t, b.Database)
	b.configure(t)
}

// write commits transactions of two rows each.
func (b *bed) write(t *testing.T, transactions int) {
	t.Helper()
	for range transactions {
		b.exec(t, insertTwo, b.Topic, b.seq)
		b.seq += 2
	}
}

// insertTwo inserts the rows number $2 + 1 and $2 + 2; five keys take turns.
const insertTwo = `
	INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload)
	SELECT $1, 'key ' || ($2::int + i) % 5, 'test', json_build_object('seq', $2::int + i) FROM generate_series(1, 2) i`

// writeWAL writes about that much WAL in a table that is not the relay's.
func (b *bed) writeWAL(t *testing.T, kilobytes int) {
	t.Helper()
	b.exec(t, `CREATE TABLE IF NOT EXISTS other (filler text)`)
	b.exec(t, `INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, $1)`, kilobytes)
}

// run starts a life of the relay.
func (b *bed) run(t *testing.T, args ...string) *relaytest.Process {
	t.Helper()
	options := b.Options()
	options.Args = args
	return relaytest.Start(t, options)
}

// once publishes what is committed now.
func (b *bed) once(t *testing.T) {
	t.Helper()
	p := b.run(t, "--once")
	if code := wait(t, p); code != 0 {
		t.Fatalf("run --once ended with %d", code)
	}
	b.awaitFree(t)
}

// freedWithin bounds how long a server may hold the slot of a session whose other
// end is gone. It is shorter than wal_sender_timeout, after which it would give up
// a session that somebody forgot to close.
const freedWithin = 8 * time.Second

// awaitFree waits until nobody holds the slot. A process that ends waits only so
// long for the server to let the slot go, and take in what it was told last.
func (b *bed) awaitFree(t *testing.T) {
	t.Helper()
	within(t, freedWithin, "the slot is free", func() bool {
		return query(t, b.db, `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, b.Slot) != "true"
	})
}

// wait returns the exit code.
func wait(t *testing.T, p *relaytest.Process) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lifetime)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("%v:\n%s", err, p.Stderr())
	}
	return code
}

// eventually polls for what must become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	within(t, patience, what, is)
}

func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// query returns one value as the server prints it; NULL and no row are empty.
func query(t *testing.T, db *pgx.Conn, text string, args ...any) string {
	t.Helper()
	rows, err := db.Query(t.Context(), text, args...)
	if err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	values, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var value any
		err := row.Scan(&value)
		if value == nil {
			return "", err
		}
		return fmt.Sprint(value), err
	})
	if err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	return strings.Join(values, " ")
}
