package ledger

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// TestAPreparedTransactionIsFollowedToItsDecision loses what a connection knows
// at each point between PREPARE and the answer to COMMIT PREPARED.
func TestAPreparedTransactionIsFollowedToItsDecision(t *testing.T) {
	t.Parallel()
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	database := server.Database(t)
	_, err := server.Connect(t, database).Exec(t.Context(), "CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text, payload json)")
	if err != nil {
		t.Fatal(err)
	}
	writers := NewWriters(WritersConfig{
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			return pgx.Connect(ctx, server.DSN(database, "postgres"))
		},
		Table: pgx.Identifier{"outbox"}, AggregateType: "t", Writers: 1, KeysPerWriter: 1, Prepared: true,
	})
	for _, test := range []struct {
		name     string
		prepared bool
		lose     func(t *testing.T, w *writer, gid string)
		rows     int
	}{
		{"a crash after PREPARE", true, func(t *testing.T, _ *writer, _ string) { server.Restart(t, "immediate") }, 1},
		{"a crash before PREPARE", false, func(t *testing.T, _ *writer, _ string) { server.Restart(t, "immediate") }, 0},
		{"the answer to COMMIT PREPARED is lost", true, func(t *testing.T, _ *writer, gid string) {
			if _, err := server.Connect(t, database).Exec(t.Context(), "COMMIT PREPARED '"+gid+"'"); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"nothing is lost", true, func(*testing.T, *writer, string) {}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, w := t.Context(), writers.newWriter(0)
			defer func() { w.disconnect(context.Background()) }()
			if !w.reconnect(ctx) {
				t.Fatal("no connection")
			}
			p := &plan{before: []row{w.row(0, 1, tagCommitted)}}
			xid, err := w.insert(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			gid := "ledger-" + p.first().id.String()
			if test.prepared {
				if _, err := w.conn.Exec(ctx, "PREPARE TRANSACTION '"+gid+"'"); err != nil {
					t.Fatal(err)
				}
			}
			test.lose(t, w, gid)
			if test.prepared {
				err = w.decide(ctx, "COMMIT PREPARED", gid)
			} else {
				w.disconnect(ctx)
				var prepared bool
				if prepared, err = w.isPrepared(ctx, xid, gid); prepared {
					t.Error("a transaction that was never prepared is prepared")
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			var rows, left int
			err = server.Connect(t, database).QueryRow(ctx,
				"SELECT (SELECT count(*) FROM outbox WHERE id = $1), (SELECT count(*) FROM pg_prepared_xacts)", p.first().id).Scan(&rows, &left)
			if err != nil || rows != test.rows || left != 0 {
				t.Errorf("%d rows, %d prepared transactions, %v; want %d and none", rows, left, err, test.rows)
			}
		})
	}
}
