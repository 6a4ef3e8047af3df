package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// oldDay is a day long past.
var oldDay = time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)

// makeDay makes the partition of a day as the migration does.
func (r *testRelay) makeDay(t testing.TB, day time.Time) (partition string) {
	t.Helper()
	partition = "outbox_" + day.Format("20060102")
	r.exec(t, "CREATE TABLE public."+partition+" (LIKE public.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
	r.exec(t, fmt.Sprintf("ALTER TABLE public.%s OWNER TO outbox_maintainer; ALTER TABLE public.outbox ATTACH PARTITION public.%[1]s FOR VALUES FROM ('%s') TO ('%s')", partition, audit.IDAt(day), audit.IDAt(day.AddDate(0, 0, 1))))
	return partition
}

// insertAt commits a row with a UUIDv7 of that time, or with a random id.
func (r *testRelay) insertAt(t testing.TB, at time.Time, random bool) {
	t.Helper()
	id := "gen_random_uuid()"
	if !random {
		v7 := audit.IDAt(at)
		v7[6], v7[8] = 0x70, 0x80
		id = fmt.Sprintf("overlay('%s' placing substr(gen_random_uuid()::text, 25) from 25)::uuid", v7)
	}
	r.exec(t, fmt.Sprintf("INSERT INTO public.outbox (id, aggregatetype, aggregateid, type, created_at) VALUES (%s, 'payment', '1', 'x', '%s')", id, at.Format(time.RFC3339)))
}

func (r *testRelay) prune(t testing.TB, code int, args ...string) *postgres.PruneReport {
	t.Helper()
	env := []string{"CDC_RELAY_POSTGRES_ADMIN_DSN=" + r.postgres.DSN(r.database, "outbox_maintainer")}
	c := execute(t, env, append([]string{"outbox", "prune", "--config", r.config, "-o", "json"}, args...)...)
	c.wantCode(t, code)
	var report postgres.PruneReport
	if err := json.Unmarshal([]byte(c.stdout.String()), &report); err != nil {
		t.Fatalf("%v in %s", err, c.stdout.String())
	}
	return &report
}

func (r *testRelay) count(t testing.TB, query string) (n int) {
	t.Helper()
	if err := r.db.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

const days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.outbox'::regclass"

// A day goes once its rows are confirmed, and not before, however old they are.
func TestPruneDropsConfirmedDaysOnly(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.migrateRoles(t)
	day := r.makeDay(t, oldDay)
	r.makeDay(t, oldDay.AddDate(0, 0, 1))          // without rows
	r.insertAt(t, oldDay.Add(time.Hour), false)    // into the old day
	r.insertAt(t, oldDay.AddDate(0, 0, -3), false) // DEFAULT
	r.insertAt(t, oldDay, true)                    // DEFAULT, no UUIDv7
	r.insert(t, 2)                                 // today
	before := r.count(t, days)

	dry := r.prune(t, exitFine, "--dry-run", "--make-days", "20")
	if len(dry.Days) != 2 || dry.DeletedRows != 2 || dry.MadeDays != 0 || r.count(t, days) != before || r.count(t, "SELECT count(*) FROM outbox") != 5 {
		t.Errorf("the dry run says %+v", dry)
	}
	// No relay runs: nothing is confirmed, nothing may go.
	kept := r.prune(t, exitUnhealthy, "--wait", "200ms", "--make-days", "0")
	if len(kept.Days) != 2 || kept.Days[0].Dropped || kept.Days[1].Dropped || kept.DeletedRows != 0 || kept.Kept == "" || r.count(t, "SELECT count(*) FROM outbox") != 5 {
		t.Errorf("without a relay: %+v", kept)
	}
	relay := start(t, nil, "run", "--config", r.config, "--log-format", "json")
	addr := relay.address(t)
	r.publishedBy(t, addr)
	// A row that is committed late into the old day, by a transaction still open
	// while prune looks, keeps that day.
	late := r.postgres.Connect(t, r.database)
	tx, err := late.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO public.outbox (id, aggregatetype, aggregateid, type) VALUES ('"+strings.Replace(audit.IDAt(oldDay.Add(2*time.Hour)).String(), "-0000-0000-", "-7000-8000-", 1)+"', 'payment', '1', 'late')"); err != nil {
		t.Fatal(err)
	}
	busy := r.prune(t, exitFine, "--wait", "20s", "--make-days", "0", "--keep", "87600h0m0s")
	if len(busy.Days) != 0 {
		t.Errorf("younger than ten years: %+v", busy)
	}
	locked := r.prune(t, exitUnhealthy, "--wait", "10ms", "--make-days", "0")
	if locked.Days[0].Dropped || !strings.Contains(locked.Days[0].Kept, "55P03") {
		t.Errorf("with an open writer: %+v", locked.Days)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	before = r.count(t, days)
	load := r.startLoad(t) // a relay of a quiet outbox confirms every ten seconds only
	gone := r.prune(t, exitFine, "--wait", "30s", "--make-days", "16")
	inserted, _ := load.stop(t)
	if len(gone.Days) == 0 || gone.Days[0].Partition != "public."+day || !gone.Days[0].Dropped {
		t.Errorf("with a relay: %+v", gone)
	}
	made := r.count(t, days) - before + len(gone.Days) // all of which went
	if gone.MadeDays != made || made < 2 {             // more where a day has begun since init
		t.Errorf("made %d days, and says %d", made, gone.MadeDays)
	}
	if n := r.count(t, "SELECT count(*) FROM outbox"); n != 2+inserted {
		t.Errorf("%d rows are left, want the %d of today", n, 2+inserted)
	}
	// Nothing went that is not in Kafka: the late row came too.
	r.publishedBy(t, addr)
	r.wantRecords(t, 6+inserted)
}

// wantRecords fails unless so many events are in the topic.
func (r *testRelay) wantRecords(t testing.TB, n int) {
	t.Helper()
	if seen := r.published(t, n); len(seen) != n {
		t.Errorf("%d events are in the topic, want %d", len(seen), n)
	}
}

func TestPruneRefusesWithoutASlot(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.migrateRoles(t)
	r.dropSlot(t)
	c := execute(t, nil, "outbox", "prune", "--config", r.config)
	c.wantCode(t, exitFailure)
	wantIn(t, c.stderr.String(), "does not exist or is lost: nothing is pruned")
}

// A table without partitions is pruned by deletes, under load, and nobody waits.
func TestPruneDeletesUnderLoad(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.exec(t, `CREATE TABLE public.outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb, headers jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now())`)
	r.init(t)
	relay := start(t, nil, "run", "--config", r.config, "--log-format", "json")
	const old = 5000
	r.exec(t, fmt.Sprintf(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, created_at) SELECT gen_random_uuid(), 'payment', i::text, 'x', now() - interval '30 days' FROM generate_series(1, %d) AS i`, old))
	load := r.startLoad(t)
	c := execute(t, nil, "outbox", "prune", "--config", r.config, "-o", "json", "--wait", "60s")
	inserted, longest := load.stop(t)
	c.wantCode(t, exitFine)
	var report postgres.PruneReport
	if err := json.Unmarshal([]byte(c.stdout.String()), &report); err != nil {
		t.Fatal(err)
	}
	if report.DeletedRows != old || report.Deletes == 0 || r.count(t, "SELECT count(*) FROM outbox") != inserted {
		t.Errorf("%d rows were inserted meanwhile; prune says %+v", inserted, report)
	}
	t.Logf("%d deletes, the longest %.3f s; %d inserts meanwhile, the longest %s", report.Deletes, report.LongestDelete, inserted, longest)
	r.publishedBy(t, relay.address(t))
	r.wantRecords(t, old+inserted)
}

// Days are dropped while others insert; no insert waits for a second.
func TestPruneDropsUnderLoad(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.migrateRoles(t)
	start(t, nil, "run", "--config", r.config, "--log-format", "json")
	for i := range 4 {
		r.makeDay(t, oldDay.AddDate(0, 0, i))
		r.insertAt(t, oldDay.AddDate(0, 0, i).Add(time.Hour), false)
	}
	load := r.startLoad(t)
	// A machine that stands still makes one lock long, not each of them.
	lock, exclusive := math.Inf(1), math.Inf(1)
	for i := range 4 { // one of the days at a time: keep what is younger than its end and half a day
		keep := time.Since(oldDay.AddDate(0, 0, i+1).Add(12 * time.Hour))
		report := r.prune(t, exitFine, "--wait", "60s", "--make-days", "15", "--keep", keep.String())
		if len(report.Days) != 1 || !report.Days[0].Dropped {
			t.Errorf("want one day dropped, got %+v", report.Days)
		}
		lock, exclusive = min(lock, report.LongestLock), min(exclusive, report.LongestExclusive)
	}
	inserted, longest := load.stop(t)
	if exclusive >= 1 || lock >= 3 {
		t.Errorf("every lock of a day took at least %.3f s, of the outbox %.3f s", lock, exclusive)
	}
	t.Logf("shortest lock of a day %.3f s, of the outbox %.3f s; %d inserts meanwhile, the longest %s", lock, exclusive, inserted, longest)
}

// insertLoad inserts rows, one transaction after another.
type insertLoad struct {
	cancel   context.CancelFunc
	done     chan struct{}
	inserted int
	longest  time.Duration
	err      error
}

func (r *testRelay) startLoad(t testing.TB) *insertLoad {
	t.Helper()
	conn := r.postgres.Connect(t, r.database)
	ctx, cancel := context.WithCancel(t.Context())
	l := &insertLoad{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for ctx.Err() == nil {
			began := time.Now()
			if l.err = insertOne(t.Context(), conn); l.err != nil {
				return
			}
			l.longest = max(l.longest, time.Since(began))
			l.inserted++
		}
	}()
	return l
}

func insertOne(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "INSERT INTO public.outbox (id, aggregatetype, aggregateid, type) VALUES (gen_random_uuid(), 'payment', '1', 'x')")
	return err
}

func (l *insertLoad) stop(t testing.TB) (inserted int, longest time.Duration) {
	t.Helper()
	l.cancel()
	<-l.done
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.inserted, l.longest
}
