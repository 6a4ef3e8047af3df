package postgres

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestStreamOverTLS(t *testing.T) {
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{TLS: true})
	over := func(t *testing.T) *fixture {
		t.Helper()
		f := ready(t, server)
		f.cfg.DSN = func() (string, error) { return server.TLSDSN(f.database, "relay_under_test"), nil }
		return f
	}
	t.Run("messages survive timeouts in their middle", func(t *testing.T) { messagesInPieces(t, over(t)) })
	t.Run("a wake comes through", func(t *testing.T) {
		s := over(t).attach(t)
		go s.Wake()
		for begun := time.Now(); ; {
			m, err := s.Receive(time.Now().Add(time.Hour))
			if err != nil || time.Since(begun) > patience {
				t.Fatal("not woken", err)
			}
			if m == nil {
				return
			}
		}
	})
	// Each message is a TLS record of its own. That each took a read and a pause
	// made it a hundred times slower.
	t.Run("a read brings many messages", func(t *testing.T) {
		f := over(t)
		link := &badLink{}
		f.over(link)
		f.exec(t, `INSERT INTO outbox (payload) SELECT repeat('x', 500) FROM generate_series(1, 40000)`)
		s := f.attach(t)
		await(t, "the server waits for the reader", func() bool {
			var waits bool
			err := f.sql.QueryRow(t.Context(), `SELECT wait_event = 'WalSenderWriteData' FROM pg_stat_activity WHERE pid = $1`, int32(s.pid)).Scan(&waits)
			return err == nil && waits
		})
		for next(t, s).Kind != cdc.MessageInsert {
		}
		before := link.count.Load()
		const rows = 50
		for range rows {
			if m := next(t, s); m.Kind != cdc.MessageInsert {
				t.Fatalf("got %v", m.Kind)
			}
		}
		if reads := link.count.Load() - before; reads > rows/10 {
			t.Errorf("%d reads for %d rows", reads, rows)
		}
	})
}
