package halts_test

import (
	"slices"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/sql"
)

// historyHalts: the server has another history than the one that was published.
func historyHalts() []halt {
	var original *cdctest.Postgres
	ownServer := func(t *testing.T) *bed {
		return newBedOn(t, cdctest.StartPostgres(t, cdctest.PostgresConfig{}))
	}
	return []halt{
		{
			name: "older copy", reason: cdc.HaltServerBehind, bed: ownServer, want: []string{"the server's WAL ends at", "Kafka has rows up to"},
			spoil: func(t *testing.T, b *bed) {
				older := b.copyServer(t)
				b.writeWAL(t, 500)
				b.write(t, 1)
				b.once(t)
				b.moveTo(t, older)
			},
			out: func(t *testing.T, b *bed) { b.resync(t, 2) },
		},
		{
			name: "older copy that went on by itself", reason: cdc.HaltDiverged, long: true, bed: ownServer, want: []string{"another history"},
			spoil: func(t *testing.T, b *bed) {
				older := b.copyServer(t)
				b.write(t, 1)
				b.writeWAL(t, 100)
				b.write(t, 1)
				b.once(t)
				b.moveTo(t, older)
				b.write(t, 2)
				b.writeWAL(t, 1000)
				b.write(t, 1)
			},
			out: func(t *testing.T, b *bed) { b.resync(t, 4) },
		},
		{
			// Same bytes, same LSNs, other events: only the witness can tell.
			name: "older copy whose commits stand at the same LSNs", reason: cdc.HaltDiverged, bed: ownServer, want: []string{"recorded was event"},
			spoil: func(t *testing.T, b *bed) {
				b.once(t)
				older := b.copyServer(t)
				// A server that was started 15 s ago writes a record of running transactions,
				// by which a commit behind it moves: neither may run for so long before its own.
				older.Stop(t, "fast")
				b.Postgres.Restart(t, "fast")
				b.moveTo(t, b.Postgres)
				lsn := `SELECT pg_current_wal_insert_lsn()::text`
				from := query(t, b.db, lsn)
				b.write(t, 1)
				b.once(t)
				end := b.newestRecord(t).EndLSN
				older.Start(t)
				b.moveTo(t, older)
				t.Logf("commits from %s to %s; the copy is at %s", from, end, query(t, b.db, lsn))
				b.write(t, 1)
				b.writeWAL(t, 100)
			},
			out: func(t *testing.T, b *bed) { b.resync(t, 2) },
		},
		{
			name: "older copy with rows where nothing was", reason: cdc.HaltDiverged, bed: ownServer, want: []string{"yet Kafka has everything before"},
			spoil: func(t *testing.T, b *bed) {
				b.once(t)
				older := b.copyServer(t)
				b.writeWAL(t, 500)
				b.once(t) // no row, but the WAL is recorded
				b.moveTo(t, older)
				b.write(t, 1)
			},
			out: resynced,
		},
		{
			name: "failover that lost published rows", reason: cdc.HaltDiverged, bed: ownServer,
			want: []string{"the server left timeline 1 at", "in Kafka but no longer in the database"},
			spoil: func(t *testing.T, b *bed) {
				standby := b.startStandby(t, nil)
				b.once(t)
				b.awaitReplay(t, standby)
				standby.Stop(t, "fast")
				b.write(t, 1)
				b.once(t)
				b.Postgres.Stop(t, "immediate")
				standby.Start(t)
				b.promote(t, standby)
				b.write(t, 1)
			},
			out: func(t *testing.T, b *bed) {
				declared := b.follow(t, "adopt --accept-divergence")
				if again := b.command(t, 0, "adopt", "--accept-divergence", "--confirm"); again.Done {
					t.Errorf("the second adoption did something: %+v", again)
				}
				b.once(t)
				phantoms := b.phantoms(t)
				if len(declared.Events) != 2 || len(phantoms) != 2 || !slices.ContainsFunc(declared.Events, func(e struct {
					EventID string `json:"event_id"`
				}) bool {
					return e.EventID == phantoms[0]
				}) {
					t.Errorf("declared were the events %v, without a row are %v", declared.Events, phantoms)
				}
				if generation := b.newestRecord(t).Generation; generation != 2 {
					t.Errorf("generation %d, want 2", generation)
				}
				b.requireOnce(t, phantoms)
			},
		},
		{
			name: "another server under the old address", reason: cdc.HaltOtherDatabase, want: []string{"system id"},
			spoil: func(t *testing.T, b *bed) {
				original = b.Postgres
				b.moveTo(t, b.sameSetup(t))
				b.write(t, 1)
			},
			mend: func(t *testing.T, b *bed) { b.moveTo(t, original) },
		},
		{
			name: "server that was restored elsewhere, row by row", reason: cdc.HaltOtherDatabase, want: []string{"system id"},
			spoil: func(t *testing.T, b *bed) {
				b.once(t)
				b.restoreElsewhere(t)
			},
			mend: func(t *testing.T, b *bed) {
				b.follow(t, "adopt --new-system")
				if again := b.command(t, 0, "adopt", "--new-system", "--confirm"); again.Done {
					t.Errorf("the second adoption did something: %+v", again)
				}
				b.write(t, 2)
			},
		},
		{
			name: "server that was restored elsewhere, and the writers have begun", reason: cdc.HaltOtherDatabase, want: []string{"system id"},
			spoil: func(t *testing.T, b *bed) {
				b.restoreElsewhere(t)
				b.write(t, 1)
			},
			out: func(t *testing.T, b *bed) {
				b.command(t, 5, "adopt", "--new-system", "--confirm")
				b.resync(t, 0)
			},
		},
	}
}

// copyServer returns a running cold copy as of now; the server was restarted.
func (b *bed) copyServer(t *testing.T) *cdctest.Postgres {
	t.Helper()
	older := b.Postgres.StartCopy(t, nil)
	b.moveTo(t, b.Postgres)
	return older
}

// startStandby returns a hot standby; the server was restarted.
func (b *bed) startStandby(t *testing.T, settings map[string]string) *cdctest.Postgres {
	t.Helper()
	standby := b.Postgres.StartStandby(t, settings)
	b.moveTo(t, b.Postgres)
	return standby
}

// awaitReplay waits until the standby has everything.
func (b *bed) awaitReplay(t *testing.T, standby *cdctest.Postgres) {
	t.Helper()
	upTo := query(t, b.db, `SELECT pg_current_wal_flush_lsn()::text`)
	conn := standby.Connect(t, "postgres")
	eventually(t, "the standby has replayed "+upTo, func() bool {
		return query(t, conn, `SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn`, upTo) == "true"
	})
}

// promote makes the standby the primary that everybody uses.
func (b *bed) promote(t *testing.T, standby *cdctest.Postgres) {
	t.Helper()
	if promoted := query(t, standby.Connect(t, "postgres"), `SELECT pg_promote()`); promoted != "true" {
		t.Fatalf("pg_promote: %s", promoted)
	}
	b.moveTo(t, standby)
}

// sameSetup starts another server with objects of the same names, as somebody
// makes them who restores only the schema.
func (b *bed) sameSetup(t *testing.T) *cdctest.Postgres {
	t.Helper()
	table, err := sql.Outbox("public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	other := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	admin := bed{db: other.Connect(t, "postgres")}
	admin.exec(t, `CREATE ROLE cdc_relay LOGIN REPLICATION`)
	admin.exec(t, `CREATE DATABASE `+b.Database)
	admin.db = other.Connect(t, b.Database)
	admin.exec(t, table)
	admin.exec(t, b.createPublication())
	admin.exec(t, `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, b.Slot)
	return other
}

func (b *bed) createPublication() string {
	return `CREATE PUBLICATION ` + b.Publication + ` FOR TABLE public.outbox WITH (publish = 'insert', publish_via_partition_root = true)`
}

// restoreElsewhere moves the relay to another server with the same rows.
func (b *bed) restoreElsewhere(t *testing.T) {
	t.Helper()
	rows := query(t, b.db, `SELECT json_agg(o)::text FROM public.outbox o`)
	b.moveTo(t, b.sameSetup(t))
	b.exec(t, `INSERT INTO public.outbox SELECT * FROM json_populate_recordset(NULL::public.outbox, $1::json)`, rows)
}
