package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// databases counts the databases of this process, for their names.
var databases atomic.Int64

// Database creates an empty database with a name of its own. With the test it
// is dropped, with its sessions, slots and prepared transactions.
func (p *Postgres) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("%s_%d_%d", wordOf(t.Name(), 30), os.Getpid(), databases.Add(1))
	conn, err := p.connect("postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// template0, because any session in template1 would be in the way.
	if _, err := conn.Exec(context.Background(), "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.server.Running() {
			return // the test stopped its own cluster, which goes as a whole
		}
		if err := p.dropDatabase(name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return name
}

// wordOf makes a test's name a part of identifiers and topic names.
func wordOf(name string, most int) string {
	word := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '_'
		}
	}, name)
	return word[:min(len(word), most)]
}

// dropDatabase drops a database and everything that would forbid it. Sessions
// may come back meanwhile (a relay that reconnects), so it tries for a while.
func (p *Postgres) dropDatabase(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	if err := p.rollbackPrepared(ctx, name); err != nil {
		return err
	}
	conn, err := p.connect("postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	for {
		err := dropOnce(ctx, conn, name)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != objectInUse && pgErr.Code != undefinedObject {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// objectInUse is the SQLSTATE of a slot that is active and of a database that
// somebody is connected to.
const objectInUse = "55006"

// undefinedObject is that of a slot that somebody else dropped just now, as the
// session of a temporary one does.
const undefinedObject = "42704"

func dropOnce(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()`, name)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`, name)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	return err
}

// rollbackPrepared ends the prepared transactions of a database, which only a
// session in that database can do.
func (p *Postgres) rollbackPrepared(ctx context.Context, name string) error {
	conn, err := p.connect(name)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(ctx, `SELECT quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database()`)
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "ROLLBACK PREPARED "+gid); err != nil {
			return err
		}
	}
	return nil
}
