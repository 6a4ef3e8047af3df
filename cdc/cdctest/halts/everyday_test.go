package halts_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
)

// rowsPerStep is how many events must have come through after every change.
const rowsPerStep = 60

func (b *bed) watch(t *testing.T) *ledger.Ledger {
	t.Helper()
	return b.Watch(t, ledger.Config{RowsPerSecond: 300, MayCutRows: 20})
}

// goOn waits until events that were written by now, and later, have come through.
func goOn(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := int(l.Counts().Rows.Load()) + rowsPerStep
	if err := l.Observer().Wait(ctx, func() bool { return l.Observer().Count() >= want }); err != nil {
		t.Fatalf("%d events came through, want %d: %v", l.Observer().Count(), want, err)
	}
}

// TestEverydayChangesDoNotHalt changes, under load, one thing after another that
// does not touch the stream. Nothing is lost, repeated or out of order.
func TestEverydayChangesDoNotHalt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	l := b.watch(t)
	relay := b.run(t)
	goOn(t, l)

	for _, statement := range []string{
		`ALTER TABLE public.outbox ADD COLUMN note text DEFAULT 'none'`,
		`CREATE INDEX outbox_note ON public.outbox (note)`,
		`COMMENT ON TABLE public.outbox IS 'events'; COMMENT ON PUBLICATION ` + b.Publication + ` IS 'of the relay'`,
		`ALTER TABLE public.outbox RENAME COLUMN note TO remark; ALTER TABLE public.outbox DROP COLUMN remark`,
		`ALTER TABLE public.outbox ADD CONSTRAINT no_empty_type CHECK (type <> '') NOT VALID`,
		`GRANT SELECT ON public.outbox TO pg_monitor`,
		`CREATE TABLE other (filler text); ALTER PUBLICATION ` + b.Publication + ` ADD TABLE other`,
		`CREATE TABLE public.outbox_old PARTITION OF public.outbox FOR VALUES FROM ('00000000-0000-0000-0000-000000000000') TO ('00000001-0000-0000-0000-000000000000')`,
		`ALTER TABLE public.outbox DETACH PARTITION public.outbox_old; DROP TABLE public.outbox_old`,
		`SELECT public.outbox_make_days(20)`,
		`VACUUM FREEZE pg_publication`,
		`VACUUM FULL pg_publication_rel`,
		`ANALYZE public.outbox`,
	} {
		b.exec(t, statement)
	}
	goOn(t, l)
	if said := relay.Stderr(); said != onlyGood(said) { // it goes on to say things
		t.Errorf("the relay noticed what does not concern it:\n%s", said)
	}

	for _, change := range []string{
		"", // a restart and nothing else
		"  compression: lz4\n  transaction_timeout: 5s\n",
	} {
		if code := relay.Terminate(t); code != 0 {
			t.Fatalf("SIGTERM ended the relay with exit code %d", code)
		}
		b.config = []string{"  replication: 1\n", "  replication: 1\n" + change}
		if change != "" {
			b.config = append(b.config, "format: text\n", "format: text\n  level: debug\nbatch: {max_rows: 20, max_bytes: 64KiB, max_partitions: 3}\ndrain_timeout: 5s\n",
				b.AdminAddr, "127.0.0.1:0", "routing:\n", "routing:\n  timestamp: produce\n")
		}
		b.configure(t)
		relay = b.run(t)
		goOn(t, l)
	}
	l.Stop(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	l.RequireExact(t, 4*rowsPerStep)
}

// onlyGood is what a relay said without lines about trouble.
func onlyGood(said string) string {
	var good []string
	for _, line := range strings.SplitAfter(said, "\n") {
		if !strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=ERROR") {
			good = append(good, line)
		}
	}
	return strings.Join(good, "")
}

// TestRingGrowsAndShrinks changes the number of transactional ids from life to
// life, one of which is killed. The ledger counts markers, which overlap where
// several ids take turns, so that the rows are compared with the table.
func TestRingGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w := b.startWriter(t)
	for _, ring := range []string{"1", "3", "5", "2", "1"} {
		b.config = nil
		b.replace(t, fmt.Sprintf("  transaction_ring: %d\n", b.TransactionRing), "  transaction_ring: "+ring+"\n")
		relay := b.run(t)
		relay.WaitState(t, cdc.StateStreaming, patience)
		w.awaitMore(t)
		b.awaitDelivered(t)
		if ring == "3" {
			relay.Kill()
		} else if code := relay.Terminate(t); code != 0 {
			t.Errorf("SIGTERM ended the relay with exit code %d", code)
		}
	}
	w.end(t)
	b.once(t)
	b.requireExact(t)
}

// TestChangesInTheMiddleOfTransactions: columns come and go between the rows of
// one transaction, partitions are dropped before the relay has read their rows.
func TestChangesInTheMiddleOfTransactions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.write(t, 1)
	const row = `INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload) SELECT CASE WHEN old THEN ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid ELSE public.outbox_uuidv7() END, topic, 'key ' || n % 5, 'test', json_build_object('seq', n) FROM next_row()`
	b.exec(t, `CREATE SEQUENCE numbers START 3; CREATE TABLE which (old bool, topic text); INSERT INTO which VALUES (false, '`+b.Topic+`');
		CREATE FUNCTION next_row() RETURNS TABLE (n bigint, old bool, topic text) LANGUAGE sql AS 'SELECT nextval(''numbers''), w.old, w.topic FROM which w'`)
	b.exec(t, `BEGIN; `+row+`; ALTER TABLE public.outbox ADD COLUMN note text DEFAULT 'x'; `+row+`; ALTER TABLE public.outbox DROP COLUMN note; `+row+`; COMMIT`)
	b.exec(t, `CREATE TABLE public.outbox_old PARTITION OF public.outbox FOR VALUES FROM ('00000000-0000-0000-0000-000000000000') TO ('00000001-0000-0000-0000-000000000000')`)
	b.exec(t, `UPDATE which SET old = true`)
	b.exec(t, row)
	b.exec(t, `BEGIN; SAVEPOINT s; `+row+`; ROLLBACK TO s; `+row+`; COMMIT`)
	b.exec(t, `UPDATE which SET old = false`)
	b.exec(t, row)
	ids := strings.Fields(query(t, b.db, `SELECT id::text FROM public.outbox ORDER BY (payload->>'seq')::int`))
	if len(ids) != 8 {
		t.Fatalf("%d rows were written, want 8", len(ids))
	}
	b.exec(t, `ALTER TABLE public.outbox DETACH PARTITION public.outbox_old; DROP TABLE public.outbox_old`)
	b.once(t)
	b.requireDelivered(t, ids)
}

// TestIdleSessionsAreEnded: where nothing happens for long, servers end idle
// sessions; neither the stream nor anybody who watches it may take that for a
// failure.
func TestIdleSessionsAreEnded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `ALTER DATABASE `+b.Database+` SET wal_sender_timeout = '8s'`)
	b.db = b.Postgres.Connect(t, "postgres") // a person's session is idle too
	relay := b.run(t)
	relay.WaitState(t, cdc.StateStreaming, patience)
	// Not before: a start that is held up between two questions is none of this. The
	// sessions that there are do not know of the setting.
	b.exec(t, `ALTER DATABASE `+b.Database+` SET idle_session_timeout = '500ms'`)
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'`, b.Database)
	idle := time.NewTimer(12 * time.Second)
	defer idle.Stop()
	select {
	case <-idle.C:
	case <-relay.Ended():
	}
	b.exec(t, `ALTER DATABASE `+b.Database+` RESET idle_session_timeout`) // for this test's own session
	b.db = b.Postgres.Connect(t, b.Database)
	b.write(t, 2)
	b.awaitDelivered(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	if said := relay.Stderr(); said != onlyGood(said) {
		t.Errorf("the relay took an idle session's end for trouble:\n%s", said)
	}
	b.requireExact(t)
}

// TestRestartWithOtherSettings is a minor upgrade as the relay sees it: the
// server goes away in good order, and the same data directory comes back under
// a server that differs. The other binary is left out, because two minors of
// one major are rarely on one machine.
func TestRestartWithOtherSettings(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"wal_sender_timeout": "10s"}
	b := newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: settings}))
	l := b.watch(t)
	relay := b.run(t)
	goOn(t, l)
	b.Postgres.Stop(t, "fast")
	maps.Copy(settings, map[string]string{
		"wal_sender_timeout": "3s", "wal_compression": "on", "full_page_writes": "on", "logical_decoding_work_mem": "64kB", "max_wal_senders": "12",
		"max_replication_slots": "12", "DateStyle": "SQL, DMY", "bytea_output": "escape", "timezone": "Asia/Seoul", "IntervalStyle": "iso_8601",
	})
	if err := b.Postgres.Server().Configure(settings); err != nil {
		t.Fatal(err)
	}
	b.Postgres.Start(t)
	goOn(t, l)
	l.Stop(t)
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
	l.RequireExact(t, 2*rowsPerStep)
}
