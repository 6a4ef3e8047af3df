package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestGuardEndsTheStreamWhenPublicationOrTableChange(t *testing.T) {
	const pub = `"pub ""of"" it's"`
	tests := []struct{ name, sql, what string }{
		{"table taken out", `ALTER PUBLICATION ` + pub + ` DROP TABLE outbox`, "taken out of the publication"},
		{"table taken out and put back", `ALTER PUBLICATION ` + pub + ` DROP TABLE outbox; ALTER PUBLICATION ` + pub + ` ADD TABLE outbox`, "put back"},
		{"publication dropped", `DROP PUBLICATION ` + pub, "publication was dropped"},
		{"publication made again", `DROP PUBLICATION ` + pub + `; CREATE PUBLICATION ` + pub + ` FOR TABLE outbox WITH (publish = 'insert')`, "dropped and made again"},
		{"table dropped", `DROP TABLE outbox`, "table was dropped"},
		{"table made again", `DROP TABLE outbox; ` + plainOutbox + `; ALTER PUBLICATION ` + pub + ` ADD TABLE outbox`, "table was dropped and made again"},
		{"inserts switched off", `ALTER PUBLICATION ` + pub + ` SET (publish = 'update')`, "no longer publishes inserts"},
		{"inserts switched off and on", `ALTER PUBLICATION ` + pub + ` SET (publish = 'update'); ALTER PUBLICATION ` + pub + ` SET (publish = 'insert')`, "publication was altered"},
		{"via root switched", `ALTER PUBLICATION ` + pub + ` SET (publish_via_partition_root = false)`, "publish_via_partition_root"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := ready(t, cdctest.SharedPostgres(t))
			s := f.attach(t)
			if _, err := s.Facts(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.exec(t, test.sql)
			p := failure(t, s)
			wantProblem(t, p, cdc.Halt, cdc.HaltStreamChanged, test.what)
			if !strings.Contains(p.Why, "inserts between ") {
				t.Errorf("no range in %v", p)
			}
			if _, err := s.Receive(time.Now().Add(time.Hour)); err == nil {
				t.Error("the stream goes on after its end")
			}
		})
	}
}

func TestGuardIgnoresWhatDoesNotConcernTheOutbox(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	if _, err := s.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `CREATE TABLE other (x int); ALTER PUBLICATION "pub ""of"" it's" ADD TABLE other`)
	f.exec(t, `ALTER TABLE outbox ADD COLUMN more text`)
	f.exec(t, `VACUUM FREEZE pg_publication, pg_publication_rel, pg_class`)
	// The guard's session is ended by somebody: it makes a new one.
	guards := func() (pids []int32) {
		rows, err := f.sql.Query(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND usename = 'relay_under_test' AND backend_type = 'client backend'`, f.database)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var pid int32
			if err := rows.Scan(&pid); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return pids
	}
	await(t, "the guard is there", func() bool { return len(guards()) == 1 })
	old := guards()[0]
	f.exec(t, `SELECT pg_terminate_backend($1)`, old)
	await(t, "the guard is there again", func() bool { pids := guards(); return len(pids) == 1 && pids[0] != old })
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a')`)
	wantPayloads(t, transaction(t, s), "a")
}

func TestAFastShutdownIsNotDelayedByTheStream(t *testing.T) {
	t.Run("while it is read", func(t *testing.T) {
		fastShutdown(t, func(s cdc.Stream) (err error) {
			for err == nil {
				_, err = s.Receive(time.Now().Add(time.Minute))
			}
			return err
		})
	})
	t.Run("while nobody reads", func(t *testing.T) {
		fastShutdown(t, func(s cdc.Stream) error {
			<-s.Lost()
			_, err := s.Receive(time.Now())
			return err
		})
	})
}

// fastShutdown stops the server while end waits for the end of the stream.
func fastShutdown(t *testing.T, end func(cdc.Stream) error) {
	t.Helper()
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	f := ready(t, server)
	f.cfg.GuardInterval = time.Hour // told by the server, not found by looking
	s := f.attach(t)
	if _, err := s.Facts(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('never confirmed')`)
	wantPayloads(t, transaction(t, s), "never confirmed")
	ended := make(chan error, 1)
	go func() {
		ended <- end(s)
		_ = s.Close()
	}()
	await(t, "the guard is connected", func() bool {
		var n int
		err := f.sql.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename = 'relay_under_test' AND backend_type = 'client backend' AND state = 'idle'`).Scan(&n)
		return err == nil && n == 1
	})
	begun := time.Now()
	server.Stop(t, "fast")
	if took := time.Since(begun); took > longSender/2 { // wal_sender_timeout would end it after longSender
		t.Errorf("the shutdown took %s", took)
	}
	if p := cdc.AsProblem(<-ended); p.Treatment != cdc.Retry {
		t.Errorf("got %v, want a retry", p)
	}
	server.Start(t) // so that the fixture's own cleanup finds a server
}
