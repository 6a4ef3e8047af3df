package main

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/sql"
)

// auditedRelay is a relay that runs, over an outbox that had rows before the
// slot was made: those are missing in Kafka.
func auditedRelay(t testing.TB, pg *cdctest.Postgres, missing int) (r *testRelay, addr string, lost []string) {
	t.Helper()
	r = newTestRelay(t, pg, cdctest.SharedKafka(t))
	ddl, err := sql.Outbox("public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	r.exec(t, ddl)
	if missing > 0 {
		lost = r.insert(t, missing)
	}
	r.init(t)
	relay := start(t, nil, "run", "--config", r.config, "--log-format", "json")
	return r, relay.address(t), lost
}

func (r *testRelay) auditReport(t testing.TB, code int, addr string, args ...string) *audit.Report {
	t.Helper()
	c := execute(t, nil, append([]string{"audit", "--config", r.config, "--addr", addr, "-o", "json"}, args...)...)
	c.wantCode(t, code)
	var report audit.Report
	if err := json.Unmarshal([]byte(c.stdout.String()), &report); err != nil {
		t.Fatalf("%v in %s", err, c.stdout.String())
	}
	return &report
}

func (r *testRelay) publishedBy(t testing.TB, addr string) {
	t.Helper()
	var lsn string
	if err := r.db.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	execute(t, nil, "wait", "--config", r.config, "--addr", addr, "--lsn", lsn).wantCode(t, exitFine)
}

func TestAuditOfARunningRelay(t *testing.T) {
	t.Parallel()
	r, addr, _ := auditedRelay(t, cdctest.SharedPostgres(t), 0)
	for range 5 {
		r.insert(t, 20)
	}
	report := r.auditReport(t, exitFine, addr, "--since", "1h")
	if report.Rows != 100 || report.Found != 100 || !report.Proved || report.Order.PairsChecked == 0 || report.Order.CommitTimes {
		t.Errorf("got %+v", report)
	}
	text := execute(t, nil, "audit", "--config", r.config, "--addr", addr)
	text.wantCode(t, exitFine)
	wantIn(t, text.stdout.String(), "rows 100  found 100  missing 0  duplicate 0  out of order 0", "track_commit_timestamp is off", "CLEAN")

	t.Run("a record that comes again is a duplicate", func(t *testing.T) {
		again := *r.records(t, r.topic, 100)[0]
		if err := r.kafka.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(t.Context(), &again).FirstErr(); err != nil {
			t.Fatal(err)
		}
		report := r.auditReport(t, exitDifferent, addr)
		if report.Duplicate != 1 || report.Found != 100 || report.Missing != 0 || report.Order.PositionsBackwards != 1 {
			t.Errorf("got %+v", report)
		}
	})
	t.Run("a row that changed and one that is gone", func(t *testing.T) {
		r.exec(t, `UPDATE outbox SET payload = '{"n": 2}' WHERE id = (SELECT max(id::text)::uuid FROM outbox)`)
		r.exec(t, `DELETE FROM outbox WHERE id = (SELECT id FROM outbox ORDER BY id OFFSET 50 LIMIT 1)`)
		report := r.auditReport(t, exitDifferent, addr)
		if report.Changed != 1 || report.Phantom != 1 || report.Rows != 99 {
			t.Errorf("got %+v", report)
		}
	})
}

// Rows that are on their way are not missing, whoever asks.
func TestAuditWithoutARelay(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.insert(t, 7)
	report := r.auditReport(t, exitUnhealthy, "127.0.0.1:1", "--timeout", "0s")
	if report.Pending != 7 || report.Missing != 0 || report.Proved {
		t.Errorf("got %+v", report)
	}
	back := execute(t, nil, "backfill", "--config", r.config, "--addr", "127.0.0.1:1", "--timeout", "0s", "--since", "1h")
	back.wantCode(t, exitUnhealthy)
	wantIn(t, back.stdout.String(), "missing 0  published 0", "7 rows without a record may still be on their way")
	execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
	if report := r.auditReport(t, exitFine, "127.0.0.1:1", "--timeout", "0s"); report.Found != 7 {
		t.Errorf("got %+v", report)
	}
}

// With commit timestamps the order across transactions is judged too.
func TestAuditJudgesOrderByCommitTimestamps(t *testing.T) {
	t.Parallel()
	pg := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"track_commit_timestamp": "on"}})
	r, addr, lost := auditedRelay(t, pg, 5)
	r.insert(t, 5)
	r.publishedBy(t, addr)
	report := r.auditReport(t, exitDifferent, addr, "--order-tolerance", "0s")
	if report.Missing != 5 || !report.Order.CommitTimes || report.OutOfOrder != 0 {
		t.Errorf("got %+v", report)
	}
	r.produceLate(t, "key-0", lost[0])
	report = r.auditReport(t, exitDifferent, addr, "--ignore-content", "--order-tolerance", "0s")
	if report.Missing != 4 || report.OutOfOrder != 1 || report.Order.PairsChecked != 1 {
		t.Errorf("with a row that came behind a later one of its key: %+v", report)
	}
	execute(t, nil, "backfill", "--config", r.config, "--addr", addr, "--since", "1h").wantCode(t, exitFine)
	report = r.auditReport(t, exitDifferent, addr, "--ignore-content", "--order-tolerance", "0s")
	if report.Missing != 0 || report.Backfilled != 4 || report.OutOfOrder != 1 {
		t.Errorf("backfilled records have no place in the order: %+v", report)
	}
}

// produceLate sends an event as the relay would, at the end of its partition.
func (r *testRelay) produceLate(t testing.TB, key, id string) {
	t.Helper()
	client := r.kafka.Client(t, kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, record := range fetches.Records() {
			if string(record.Key) != key {
				continue
			}
			late := &kgo.Record{Topic: record.Topic, Partition: record.Partition, Key: record.Key, Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id)}}}
			if err := client.ProduceSync(t.Context(), late).FirstErr(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// The auditor's role may SELECT the outbox and nothing more.
func TestAuditAsOutboxAuditor(t *testing.T) {
	t.Parallel()
	r, addr, _ := auditedRelay(t, cdctest.SharedPostgres(t), 0)
	r.migrateRoles(t)
	r.insert(t, 3)
	r.writeConfig(t, "postgres://nobody@127.0.0.1:1/none", "")
	env := []string{"CDC_RELAY_POSTGRES_AUDIT_DSN=" + r.postgres.DSN(r.database, "outbox_auditor")}
	c := execute(t, env, "audit", "--config", r.config, "--addr", addr)
	c.wantCode(t, exitFine)
	wantIn(t, c.stdout.String(), "rows 3  found 3")
}

// rolesMu keeps tests from making the server's roles at the same time.
var rolesMu sync.Mutex

// migrateRoles makes the roles around the outbox, which other tests share.
func (r *testRelay) migrateRoles(t testing.TB) {
	t.Helper()
	roles, err := sql.Roles("public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	r.makeRoles(t, roles)
}

// makeRoles runs a script that makes roles.
func (r *testRelay) makeRoles(t testing.TB, script string) {
	t.Helper()
	rolesMu.Lock()
	defer rolesMu.Unlock()
	if _, err := r.db.Exec(t.Context(), script, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

func TestAuditCommandLine(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"--since and --from are two ways":   {"audit", "--since", "1h", "--from", "0195d3f0-1234-7abc-8def-0123456789ab"},
		`--since: "soon" is neither an age`: {"audit", "--since", "soon"},
		`--to: event id "17" is no UUID`:    {"audit", "--to", "17"},
		"may not be negative":               {"audit", "--timeout", "-1s"},
		"say which rows: either --ids":      {"backfill"},
		`--ids: event id "17" is no UUID`:   {"backfill", "--ids", "17"},
		"--rate and --timeout may not be":   {"backfill", "--since", "1h", "--rate", "-1"},
		"--keep has to be positive":         {"outbox", "prune", "--keep", "0s"},
	} {
		c := execute(t, nil, args...)
		c.wantCode(t, exitUsage)
		wantIn(t, c.stderr.String(), name)
	}
}
