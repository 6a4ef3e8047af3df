package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestStreamDeliversCommittedRowsInOrder(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	if _, err := s.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a'), (''), (NULL), ('é')`)
	rows := transaction(t, s)
	wantPayloads(t, rows, "a", "", "NULL", "é")
	for _, row := range rows {
		if id, _ := row.Value("id"); string(row.EventID) != string(id) || len(id) != 36 {
			t.Errorf("event id %q, id column %q", row.EventID, id)
		}
		if row.XID == 0 || row.CommitLSN == 0 || time.Since(row.CommitTime).Abs() > time.Minute {
			t.Errorf("xid %d, commit LSN %s, commit time %s", row.XID, row.CommitLSN, row.CommitTime)
		}
	}

	t.Run("rolled-back savepoints and transactions do not come", func(t *testing.T) {
		f.exec(t, `BEGIN; INSERT INTO outbox (payload) VALUES ('never'); ROLLBACK`)
		f.exec(t, `BEGIN; INSERT INTO outbox (payload) VALUES ('1'); SAVEPOINT s; INSERT INTO outbox (payload) VALUES ('2'); ROLLBACK TO s;
			INSERT INTO outbox (payload) VALUES ('3'); COMMIT`)
		wantPayloads(t, transaction(t, s), "1", "3")
	})
	t.Run("COPY gives rows of their own", func(t *testing.T) {
		if _, err := f.sql.PgConn().CopyFrom(t.Context(), strings.NewReader("x\ny\nz\n"), `COPY outbox (payload) FROM STDIN`); err != nil {
			t.Fatal(err)
		}
		wantPayloads(t, transaction(t, s), "x", "y", "z")
	})
	t.Run("a value of 3 MB comes whole", func(t *testing.T) {
		f.exec(t, `INSERT INTO outbox (payload) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100000) AS i`)
		rows := transaction(t, s)
		if value, _ := rows[0].Value("payload"); len(value) != 3_200_000 {
			t.Errorf("got %d bytes", len(value))
		}
	})
	t.Run("renamed and added columns in the middle of a transaction are mapped by name", func(t *testing.T) {
		f.exec(t, `BEGIN; INSERT INTO outbox (payload) VALUES ('before'); ALTER TABLE outbox RENAME COLUMN payload TO body;
			ALTER TABLE outbox ADD COLUMN payload text; INSERT INTO outbox (body, payload) VALUES ('old column', 'after');
			ALTER TABLE outbox DROP COLUMN body; INSERT INTO outbox (payload) VALUES ('last'); COMMIT`)
		rows := transaction(t, s)
		wantPayloads(t, rows, "before", "after", "last")
		if rows[0].Relation == rows[1].Relation || rows[1].Relation == rows[2].Relation {
			t.Error("a relation was modified instead of replaced")
		}
	})
	t.Run("logical messages are counted as ignored, rows of other tables do not come", func(t *testing.T) {
		f.exec(t, `CREATE TABLE other (x int); INSERT INTO other VALUES (1)`)
		f.exec(t, `SELECT pg_logical_emit_message(false, 'p', 'x')`)
		for m := next(t, s); ; m = next(t, s) {
			if m.Kind == cdc.MessageIgnored {
				if m.Ignored != ignoredMessage {
					t.Errorf("ignored %q", m.Ignored)
				}
				return
			}
			if m.Kind == cdc.MessageInsert {
				t.Fatalf("a row of another table came: %v", m.Row)
			}
		}
	})
}

func TestPartitionsArriveAsTheirRoot(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, `CREATE TABLE outbox (id int, payload text) PARTITION BY RANGE (id); CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM (0) TO (10)`)
	f.publish(t)
	f.slot(t)
	f.cfg.RequiredColumns = []string{"payload"}
	s := f.attach(t)
	if _, err := s.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `INSERT INTO outbox VALUES (1, 'old partition')`)
	wantPayloads(t, transaction(t, s), "old partition")
	f.exec(t, `CREATE TABLE outbox_2 PARTITION OF outbox DEFAULT; INSERT INTO outbox VALUES (11, 'new partition')`)
	rows := transaction(t, s)
	wantPayloads(t, rows, "new partition")
	if rows[0].Relation.Name != "outbox" || string(rows[0].EventID) != "11" {
		t.Errorf("relation %s, event id %s", rows[0].Relation.Name, rows[0].EventID)
	}
}

func (f *fixture) confirmed(t *testing.T) cdc.LSN {
	t.Helper()
	var text string
	if err := f.sql.QueryRow(t.Context(), `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, f.cfg.Slot).Scan(&text); err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// await polls until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestStatusAcknowledgesExactlyWhatItIsGiven(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	before := f.confirmed(t)
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a')`)
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('b')`)
	var ends []cdc.LSN
	for len(ends) < 2 {
		if m := next(t, s); m.Kind == cdc.MessageCommit {
			ends = append(ends, m.EndLSN)
		}
	}
	// An answer to a requested reply proves that the status was read.
	status := func(confirmed cdc.LSN) {
		t.Helper()
		if err := s.Status(confirmed, true); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; {
			m, err := s.Receive(deadline)
			if err != nil || m == nil {
				t.Fatalf("no keepalive: %v, %v", m, err)
			}
			if m.Kind == cdc.MessageKeepalive {
				return
			}
		}
	}
	status(0)
	if got := f.confirmed(t); got != before {
		t.Errorf("a heartbeat moved the slot from %s to %s", before, got)
	}
	status(ends[0])
	await(t, "the first end LSN is confirmed", func() bool { return f.confirmed(t) == ends[0] })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.free(t)
	s = f.attach(t)
	wantPayloads(t, transaction(t, s), "b")
}

func TestASecondStreamFindsTheSlotActive(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	first := f.attach(t)
	second := f.source(t)
	if _, err := second.Attach(t.Context()); !errors.Is(err, cdc.ErrSlotActive) {
		t.Fatalf("got %v, want ErrSlotActive", err)
	}
	facts, err := second.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !facts.Slot.Active || facts.Slot.ActivePID != int32(first.pid) {
		t.Errorf("slot %+v, want active by %d", facts.Slot, first.pid)
	}
	begun := time.Now()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	closing := time.Since(begun)
	s, err := second.Attach(t.Context()) // at once: Close freed the slot
	if errors.Is(err, cdc.ErrSlotActive) && closing >= closeTimeout*3/4 {
		f.free(t) // Close waited for as long as it may, and the server had no time
		s, err = second.Attach(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReceiveReturnsAtItsTimeAndAfterWake(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	drain := func() {
		t.Helper()
		for {
			m, err := s.Receive(time.Now().Add(50 * time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				return
			}
		}
	}
	drain()
	s.Wake()
	if m, err := s.Receive(time.Now().Add(time.Hour)); m != nil || err != nil {
		t.Fatalf("a wake before: %v, %v", m, err)
	}
	for range 200 { // a wake at any moment around the read
		go s.Wake()
		if m, err := s.Receive(time.Now().Add(time.Hour)); err != nil || m != nil && m.Kind != cdc.MessageKeepalive {
			t.Fatalf("a wake during: %v, %v", m, err)
		}
	}
	drain()
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a')`)
	await(t, "a time that is over still sees what the socket holds", func() bool {
		m, err := s.Receive(time.Now().Add(-time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return m != nil && m.Kind == cdc.MessageCommit
	})
}

func TestClosedStreamIsClosed(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.Wake()
	if _, err := s.Receive(time.Now()); err == nil {
		t.Error("Receive after Close gave no error")
	}
	if err := s.Status(0, false); err == nil {
		t.Error("Status after Close gave no error")
	}
	if _, err := s.Facts(t.Context()); err == nil {
		t.Error("Facts after Close gave no error")
	}
}

func TestRowsFromBeforeThePublicationEndTheStream(t *testing.T) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.exec(t, plainOutbox)
	f.slot(t)
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('passed over')`)
	f.publish(t)
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('after')`)
	s := f.attach(t)
	for {
		m, err := s.Receive(time.Now().Add(patience))
		switch {
		case err == nil && m == nil:
			t.Fatal("nothing came")
		case err == nil && m.Kind == cdc.MessageInsert:
			t.Fatalf("a row came: %q", payloads([]cdc.Row{m.Row}))
		case err == nil:
		case f.server.Major() >= 18:
			wantProblem(t, err, cdc.Halt, cdc.HaltStreamChanged, "passes rows over")
			return
		default:
			wantProblem(t, err, cdc.Undecodable, "", "42704")
			return
		}
	}
}
