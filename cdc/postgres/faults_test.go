package postgres

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// muteLink lets through what the server sends; what it is sent is lost on the
// way once mute is set.
type muteLink struct {
	net.Conn
	mute atomic.Bool
}

func (l *muteLink) Write(p []byte) (int, error) {
	if l.mute.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// impatience is how long the walsenders of a hurried fixture wait for a status: long
// enough for a test that is not given the processor for some seconds.
const impatience = 6 * time.Second

// hurried makes the fixture's role one whose walsenders wait for impatience only.
func (f *fixture) hurried(t *testing.T) {
	t.Helper()
	f.exec(t, `DO $$ BEGIN CREATE ROLE relay_in_a_hurry LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN NULL; END $$; ALTER ROLE relay_in_a_hurry SET wal_sender_timeout = '`+impatience.String()+`'`)
	f.cfg.DSN = func() (string, error) { return f.server.DSN(f.database, "relay_in_a_hurry"), nil }
}

// TestAServerThatHearsNothingEndsTheStream is a half-open link: the relay hears
// the server, the server does not hear the relay, and ends the walsender.
func TestAServerThatHearsNothingEndsTheStream(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	f.hurried(t)
	link := new(muteLink)
	f.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || link.Conn != nil {
			return conn, err
		}
		link.Conn = conn
		return link, nil
	}
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('before')`)
	s := f.attach(t)
	wantPayloads(t, transaction(t, s), "before")
	link.mute.Store(true)
	for begun := time.Now(); ; {
		_, err := s.Receive(time.Now().Add(50 * time.Millisecond))
		if p, ok := errors.AsType[*cdc.Problem](err); ok {
			if p.Treatment != cdc.Retry {
				t.Errorf("got %v", p)
			}
			break
		}
		if err := s.Status(0, false); err != nil {
			break
		}
		if time.Since(begun) > patience {
			t.Fatal("the stream goes on")
		}
	}
	_ = s.Close()
	f.cfg.Dial = nil
	f.free(t)
	wantPayloads(t, transaction(t, f.attach(t)), "before") // it was never acknowledged
}

// acknowledged reads the next transaction with rows and acknowledges its end.
func acknowledged(t *testing.T, s *stream, want string) cdc.LSN {
	t.Helper()
	var rows []cdc.Row
	for {
		switch m := next(t, s); {
		case m.Kind == cdc.MessageInsert:
			rows = append(rows, m.Row.Clone())
		case m.Kind == cdc.MessageCommit && len(rows) > 0:
			wantPayloads(t, rows, want)
			if err := s.Status(m.EndLSN, true); err != nil {
				t.Fatal(err)
			}
			return m.EndLSN
		}
	}
}

// TestAnOpenTransactionHoldsBackWALOnly: rows of others go on while a
// transaction stays open, or is left prepared, and what that costs the server is
// to be seen: the slot's restart_lsn and catalog_xmin stay where it began.
func TestAnOpenTransactionHoldsBackWALOnly(t *testing.T) {
	for _, test := range []struct{ name, hold, end string }{
		{"open", ``, `COMMIT`},
		{"prepared", `PREPARE TRANSACTION 'left behind'`, `COMMIT PREPARED 'left behind'`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := ready(t, cdctest.SharedPostgres(t))
			s := f.attach(t)
			look := f.monitor(t)
			held := f.server.Connect(t, f.database)
			run := func(statement string) {
				t.Helper()
				if _, err := held.Exec(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			run(`BEGIN`)
			run(`INSERT INTO outbox (payload) VALUES ('held')`)
			// The end of what is inserted, not of what is written: the snapshot that
			// restart_lsn stops at may have been logged just now.
			var inserted string
			if err := held.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&inserted); err != nil {
				t.Fatal(err)
			}
			began, err := cdc.ParseLSN(inserted)
			if err != nil {
				t.Fatal(err)
			}
			run(test.hold)
			const rounds = 3
			var end cdc.LSN
			for range rounds {
				end = f.others(t, s)
			}
			await(t, "what the others wrote is acknowledged", func() bool { return look().Slot.ConfirmedFlush >= end })
			stats := look()
			if stats.Slot.Restart > began {
				t.Errorf("restart_lsn %s passed the open transaction before %s", stats.Slot.Restart, began)
			}
			if *stats.CatalogXMinAge < othersXIDs*rounds {
				t.Errorf("catalog_xmin is %d transactions old, want at least %d", *stats.CatalogXMinAge, othersXIDs*rounds)
			}
			run(test.end)
			acknowledged(t, s, "held")
			await(t, "the slot lets go of what the transaction held", func() bool {
				f.others(t, s)
				now := look()
				return now.Slot.Restart > began && *now.CatalogXMinAge < *stats.CatalogXMinAge
			})
		})
	}
}

// monitor looks at the slot as metrics do.
func (f *fixture) monitor(t *testing.T) (look func() cdc.SlotStats) {
	t.Helper()
	monitor, err := NewMonitor(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(monitor.Close)
	return func() cdc.SlotStats {
		t.Helper()
		stats, err := monitor.SlotStats(t.Context())
		if err != nil || stats.Slot == nil || stats.CatalogXMinAge == nil {
			t.Fatalf("%+v, %v", stats, err)
		}
		return stats
	}
}

// othersXIDs is how many transaction ids a round of others takes.
const othersXIDs = 10

// others commits what has nothing to do with the transaction that is held, and a
// row, which is read and acknowledged up to the end that it returns.
func (f *fixture) others(t *testing.T, s *stream) (end cdc.LSN) {
	t.Helper()
	for range othersXIDs {
		f.exec(t, `SELECT pg_current_xact_id()`)
	}
	f.exec(t, `CHECKPOINT`) // logs a snapshot, without which restart_lsn never moves
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('free')`)
	return acknowledged(t, s, "free")
}

// TestNoWalsenderIsFree: max_wal_senders is used up by others, then one is free.
func TestNoWalsenderIsFree(t *testing.T) {
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"max_wal_senders": "1"}})
	f := ready(t, server)
	other := ready(t, server)
	holder := other.attach(t)
	source := f.source(t)
	if _, err := source.Inspect(t.Context()); err != nil && cdc.AsProblem(err).Treatment != cdc.Retry {
		t.Errorf("Inspect: %v", err)
	}
	_, err := source.Attach(t.Context())
	wantProblem(t, err, cdc.Retry, "", "53300")
	if p := cdc.AsProblem(err); !strings.Contains(p.Fix, "max_wal_senders") {
		t.Errorf("the way out does not name the setting: %v", p)
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	var s cdc.Stream
	await(t, "the walsender is free", func() bool {
		s, err = source.Attach(t.Context())
		return err == nil
	})
	defer s.Close()
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('at last')`)
	wantPayloads(t, transaction(t, s.(*stream)), "at last")
}
