package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// xid is the transaction of a row.
func (r *testRelay) xid(t *testing.T, id string) cdc.XID8 {
	t.Helper()
	var xid cdc.XID8
	if err := r.db.QueryRow(t.Context(), "SELECT xmin::text::int8 FROM public.outbox WHERE id = $1", id).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	return xid
}

// outboxRows counts the rows of the table from this transaction on.
func (r *testRelay) outboxRows(t *testing.T, from cdc.XID8) (n int) {
	t.Helper()
	if err := r.db.QueryRow(t.Context(), "SELECT count(*) FROM public.outbox WHERE xmin::text::int8 >= $1", from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// floor is that of the newest position record.
func (r *testRelay) floor(t *testing.T) cdc.PublishedFloor {
	t.Helper()
	_, record := r.position(t)
	if record.PublishedFloor == nil {
		return cdc.PublishedFloor{}
	}
	return *record.PublishedFloor
}

// A resync compares the rows from the published floor on, and finds the one that
// was held back by a transaction that had begun before the floor was proved.
func TestResyncComparesFromTheFloorOn(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	run := start(t, nil, "run", "--config", r.config)
	published := r.insert(t, 1)
	r.wantPublished(t, published)
	advance := func(above cdc.XID8) {
		t.Helper()
		eventually(t, "a floor above the rows", func() bool {
			published = append(published, r.insert(t, 1)...)
			return r.floor(t).XID > above
		})
	}
	advance(0)
	covered := r.insert(t, 50)
	published = append(published, covered...)
	late := r.postgres.Connect(t, r.database)
	tx, err := late.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const held = "00000000-0000-4000-8000-00000000000a"
	if _, err := tx.Exec(t.Context(), `INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, 'payment', 'key', 't', '{}')`, pgx.QueryExecModeSimpleProtocol, held); err != nil {
		t.Fatal(err)
	}
	advance(r.xid(t, covered[0]))
	r.wantPublished(t, published)
	run.stop(t, exitFine)
	r.dropSlot(t)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	missing := append(r.insert(t, 3), held)
	proved := r.floor(t)
	if xid := r.xid(t, held); proved.XID > xid || proved.XID <= r.xid(t, covered[0]) {
		t.Fatalf("the floor is %+v, a transaction is not published that has id %d", proved, xid)
	}

	rows, above := r.outboxRows(t, 0), r.outboxRows(t, proved.XID)
	below := rows - r.outboxRows(t, proved.From)
	want := fmt.Sprintf("compares %d rows; those of transactions from %d to below %d", below+above, proved.From, proved.XID)
	for _, confirm := range [][]string{nil, {"--confirm"}} {
		whole := r.command(t, exitFine, "resync", "--compare-all")
		said := strings.Join(whole.Does, "\n")
		wantIn(t, said, "publishes 4 rows", fmt.Sprintf("in the order of their creation; %d are", len(published)))
		if strings.Contains(said, "need none") {
			t.Errorf("asked to compare everything it says %q", said)
		}
		done := r.command(t, exitFine, append([]string{"resync"}, confirm...)...)
		wantIn(t, strings.Join(done.Does, "\n"), want, "publishes 4 rows")
	}
	if rows-above-below < len(covered) {
		t.Errorf("of %d rows the floor %+v covers %d, want the %d published before it", rows, proved, rows-above-below, len(covered))
	}
	r.wantPublished(t, append(published, missing...))

	// The next one relies on what this one has compared, once a row bears witness.
	if floor := r.floor(t); floor.LSN == 0 || floor.From != 0 {
		t.Errorf("after the resync the floor is %+v", floor)
	}
	witness := r.insert(t, 1)
	published = append(append(published, missing...), witness...)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	after := r.floor(t)
	r.dropSlot(t)
	again := r.command(t, exitFine, "resync")
	wantIn(t, strings.Join(again.Does, "\n"), fmt.Sprintf("compares %d rows; those of transactions from 0 to below %d", r.outboxRows(t, after.XID), after.XID), "publishes 0 rows")

	// Without the witness nothing is taken for published.
	r.exec(t, fmt.Sprintf("UPDATE public.outbox SET payload = payload WHERE id = '%s'", witness[0]))
	if said := strings.Join(r.command(t, exitFine, "resync", "--confirm").Does, "\n"); strings.Contains(said, "need none") {
		t.Errorf("without its witness it says %q", said)
	}
	r.wantPublished(t, published)
}

// A resync proves a floor of its own: what it has compared is not compared again.
func TestResyncAfterAResync(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	ids := r.insert(t, 5)
	r.dropSlot(t)
	if done := r.command(t, exitFine, "resync", "--confirm"); !done.Done {
		t.Fatalf("it did %+v", done)
	}
	ids = append(ids, r.insert(t, 1)...)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.exec(t, "DELETE FROM public.outbox WHERE id NOT IN (SELECT id FROM public.outbox ORDER BY id DESC LIMIT 1)")
	r.dropSlot(t)
	done := r.command(t, exitFine, "resync", "--confirm")
	wantIn(t, strings.Join(done.Does, "\n"), "compares 1 rows; ", "publishes 0 rows")
	more := r.insert(t, 2)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.wantPublished(t, append(ids, more...))
}
