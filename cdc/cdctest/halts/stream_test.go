package halts_test

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/sql"
)

// streamHalts: publication or table are not what they were, so that the stream
// may have passed rows over. Each is found while running, and at a start.
func streamHalts() []halt {
	changes := []struct {
		name  string
		start string // what the message says at a start
		live  string // and while running; empty: the server ends the stream first, and a start finds it
		// missed: all looks well again, and rows were passed over. These are also
		// done while the relay is away; the others are found by the second start.
		missed bool
		spoil  func(t *testing.T, b *bed)
		// sql is what the message at a start says has to be done first; empty: nothing.
		sql string
	}{
		{"publication dropped", "does not exist", "publication was dropped", false, func(t *testing.T, b *bed) {
			b.exec(t, `DROP PUBLICATION `+b.Publication)
		}, `CREATE PUBLICATION {publication} FOR TABLE public.outbox WITH (publish = 'insert', publish_via_partition_root = true)`},
		{"publication made again", "altered or made again", "", true, func(t *testing.T, b *bed) {
			b.exec(t, `DROP PUBLICATION `+b.Publication)
			b.write(t, 1)
			b.exec(t, b.createPublication())
		}, ``},
		{"publication altered and altered back", "altered or made again", "publication was altered", true, func(t *testing.T, b *bed) {
			defer b.atOnce(t)()
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` SET (publish = 'update')`)
			b.write(t, 1)
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` SET (publish = 'insert')`)
		}, ``},
		{"inserts not published", "does not publish inserts", "no longer publishes inserts", false, func(t *testing.T, b *bed) {
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` SET (publish = 'update')`)
			b.write(t, 1)
		}, `ALTER PUBLICATION {publication} SET (publish = 'insert')`},
		{"partition root not published", "does not publish via the partition root", "publish_via_partition_root was changed", false, func(t *testing.T, b *bed) {
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` SET (publish_via_partition_root = false)`)
		}, `ALTER PUBLICATION {publication} SET (publish_via_partition_root = true)`},
		{"table taken out", "does not contain table public.outbox", "taken out of the publication", false, func(t *testing.T, b *bed) {
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` DROP TABLE public.outbox`)
			b.write(t, 1)
		}, `ALTER PUBLICATION {publication} ADD TABLE public.outbox`},
		{"table taken out and put back", "altered or made again", "taken out of the publication and put back", true, func(t *testing.T, b *bed) {
			defer b.atOnce(t)()
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` DROP TABLE public.outbox`)
			b.write(t, 1)
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` ADD TABLE public.outbox`)
		}, ``},
		{"table renamed", "table public.outbox does not exist", "table was dropped or renamed", false, func(t *testing.T, b *bed) {
			b.exec(t, `ALTER TABLE public.outbox RENAME TO old_outbox`)
		}, `ALTER TABLE public.old_outbox RENAME TO outbox`},
		{"table made again", "does not contain table public.outbox", "the table was dropped and made again", false, func(t *testing.T, b *bed) {
			defer b.atOnce(t)()
			b.remakeTable(t)
			b.write(t, 1)
		}, `ALTER PUBLICATION {publication} ADD TABLE public.outbox`},
		{"table made again and put back", "made again", "the table was dropped and made again", true, func(t *testing.T, b *bed) {
			defer b.atOnce(t)()
			b.remakeTable(t)
			b.write(t, 1)
			b.exec(t, `ALTER PUBLICATION `+b.Publication+` ADD TABLE public.outbox`)
		}, ``},
	}
	var all []halt
	for _, c := range changes {
		out := func(t *testing.T, b *bed) { b.streamAdopted(t, c.name, c.sql) }
		live := []string{"changed while streaming", c.live, "inserts between", "in doubt"}
		if c.live == "" {
			live = nil
		}
		all = append(all, halt{name: c.name + " while running", reason: cdc.HaltStreamChanged, running: true, want: live, then: []string{c.start}, spoil: c.spoil, out: out})
		if c.missed {
			all = append(all, halt{name: c.name, reason: cdc.HaltStreamChanged, want: []string{c.start}, spoil: c.spoil, out: out})
		}
	}
	return append(all, halt{
		name: "mapped column dropped", reason: cdc.HaltStreamChanged, want: []string{"has no column type"},
		spoil: func(t *testing.T, b *bed) { b.exec(t, `ALTER TABLE public.outbox DROP COLUMN type`) },
		mend: func(t *testing.T, b *bed) {
			b.exec(t, `ALTER TABLE public.outbox ADD COLUMN type text NOT NULL DEFAULT 'test'`)
		},
	}, halt{
		name: "rows from before the publication", reason: cdc.HaltStuck, reaches: true, slow: true, want: []string{"42704", "tried 10 times"},
		bed: func(t *testing.T) *bed {
			if postgres := cdctest.SharedPostgres(t); postgres.Major() < 18 {
				return newBedOn(t, postgres)
			}
			// From 18 on the server warns and passes the rows over, which is found as
			// stream-changed: postgres.TestRowsFromBeforeThePublicationEndTheStream.
			return newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{Major: 17}))
		},
		spoil: func(t *testing.T, b *bed) {
			b.exec(t, `DROP PUBLICATION `+b.Publication)
			b.write(t, 1)
			b.exec(t, b.createPublication())
			b.adoptByHand(t)
		},
		out: passedPoint,
	})
}

// atOnce makes one transaction of what follows, which the returned function
// ends, so that nobody looks in between.
func (b *bed) atOnce(t *testing.T) (end func()) {
	t.Helper()
	b.exec(t, `BEGIN`)
	return func() { b.exec(t, `COMMIT`) }
}

func (b *bed) remakeTable(t *testing.T) {
	t.Helper()
	table, err := sql.Outbox("public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	b.exec(t, `DROP TABLE public.outbox`)
	b.exec(t, table)
}

// adoptStream does what the message says, and what the one after it says.
func (b *bed) adoptStream(t *testing.T, first string) {
	t.Helper()
	if first != "" {
		b.exec(t, first)
		b.message = requireHalt(t, b.run(t), cdc.HaltStreamChanged, nil)
	}
	b.follow(t, "adopt --stream")
	if again := b.command(t, 0, "adopt", "--stream", "--confirm"); again.Done {
		t.Errorf("the second adoption did something: %+v", again)
	}
}

// streamAdopted adopts, and publishes what the stream has passed over.
func (b *bed) streamAdopted(t *testing.T, name, first string) {
	t.Helper()
	first = strings.ReplaceAll(first, "{publication}", b.Publication)
	switch name {
	case "table renamed": // it is the same again
		b.exec(t, first)
	case "publication made again": // there are rows between the two that the server cannot decode
		b.adoptStream(t, first)
		b.message = "cdc-relay adopt --from-slot --confirm" // as the message of the halt stuck says
		passedPoint(t, b)
		return
	default:
		b.adoptStream(t, first)
	}
	b.repaired(t)
	b.requireOnce(t, b.phantoms(t)) // those of a table that is gone
}

// passedPoint is the way out of a point of the WAL that cannot be decoded.
func passedPoint(t *testing.T, b *bed) {
	t.Helper()
	b.awaitFree(t)
	b.exec(t, `SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())`, b.Slot)
	b.follow(t, "adopt --from-slot")
	b.repaired(t)
	b.requireOnce(t, nil)
}

// adoptByHand makes the position record name the publication that there is now,
// as if nothing had been missed.
func (b *bed) adoptByHand(t *testing.T) {
	t.Helper()
	b.rewriteRecord(t, func(r *cdc.PositionRecord) {
		err := b.db.QueryRow(t.Context(), `
			SELECT p.oid::int8, p.xmin::text::int8, pr.oid::int8, pr.xmin::text::int8
			FROM pg_publication p JOIN pg_publication_rel pr ON pr.prpubid = p.oid WHERE p.pubname = $1`, b.Publication).
			Scan(&r.Publication.OID, &r.Publication.XMin, &r.Publication.RelOID, &r.Publication.RelXMin)
		if err != nil {
			t.Fatal(err)
		}
	})
}
