package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/sql"
)

// TestWhatNeedsAPerson breaks one thing of a working relay that has rows
// waiting. Run has to end with 5, say what, why and how to mend it, and
// acknowledge nothing.
func TestWhatNeedsAPerson(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(t *testing.T, r *testRelay)
		want  []string
		reads bool // it publishes what was there before, and may acknowledge that
	}{
		{
			name:  "publication missing",
			spoil: func(t *testing.T, r *testRelay) { r.exec(t, `DROP PUBLICATION "`+r.slot()+`"`) },
			want:  []string{"publication", "does not exist", "fix: "},
		},
		{
			name: "publication without the table",
			spoil: func(t *testing.T, r *testRelay) {
				r.exec(t, `ALTER PUBLICATION "`+r.slot()+`" DROP TABLE public.outbox`)
			},
			want: []string{"does not contain table public.outbox", "fix: "},
		},
		{
			name:  "table missing",
			spoil: func(t *testing.T, r *testRelay) { r.exec(t, `DROP TABLE public.outbox`) },
			want:  []string{"table public.outbox does not exist", "fix: "},
		},
		{
			name:  "slot missing",
			spoil: func(t *testing.T, r *testRelay) { r.dropSlot(t) },
			want:  []string{"slot-lost", r0slot, "fix: "},
		},
		{
			name: "slot moved by hand",
			spoil: func(t *testing.T, r *testRelay) {
				r.awaitFreeSlot(t, r.slot())
				r.exec(t, `SELECT pg_replication_slot_advance('`+r.slot()+`', pg_current_wal_lsn())`)
			},
			want: []string{"slot-moved", "fix: "},
		},
		{
			name:  "topic missing",
			spoil: func(t *testing.T, r *testRelay) { r.deleteTopic(t, r.topic) },
			want:  []string{"topic", "does not exist", "fix: "},
		},
		{
			name:  "position topic missing",
			spoil: func(t *testing.T, r *testRelay) { r.deleteTopic(t, r.positionTopic()) },
			want:  []string{"position-missing", "fix: "},
		},
		{
			name: "record too large",
			spoil: func(t *testing.T, r *testRelay) {
				r.exec(t, `INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload) VALUES ('payment', 'k', 't', to_jsonb(repeat('x', 3000000)))`)
			},
			want:  []string{"bad-row", "fix: "},
			reads: true,
		},
		{
			name: "foreign database",
			spoil: func(t *testing.T, r *testRelay) {
				r.rewriteRecord(t, func(p *cdc.PositionRecord) { p.SystemID = "7000000000000000001" })
			},
			want: []string{"other-database", "7000000000000000001", "fix: "},
		},
		{
			name: "unfinished init",
			spoil: func(t *testing.T, r *testRelay) {
				r.rewriteRecord(t, func(p *cdc.PositionRecord) { p.State = cdc.RecordInitialising })
			},
			want: []string{"position-missing", "init", "fix: "},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
			r.init(t)
			r.insert(t, 2)
			sound := r.insertLSN(t)
			test.spoil(t, r)
			before := r.confirmed(t)
			run := execute(t, nil, "run", "--config", r.config)
			run.wantCode(t, exitHalt)
			for _, want := range test.want {
				wantIn(t, run.stderr.String(), strings.ReplaceAll(want, r0slot, r.slot()))
			}
			if after := r.confirmed(t); after != before && (!test.reads || after > sound) {
				t.Errorf("the slot was moved from %s to %s", before, after)
			}
		})
	}
}

// r0slot stands for the name of the slot, which each test has anew.
const r0slot = "SLOT"

func (r *testRelay) deleteTopic(t testing.TB, topic string) {
	t.Helper()
	admin := r.kafka.Admin(t)
	if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "topic "+topic+" is gone", func() bool {
		topics, err := admin.ListTopics(t.Context())
		return err == nil && !topics.Has(topic)
	})
}

// position reads the position record and returns what can commit another. It
// waits for the markers: a look without fencing does so for half a second only.
func (r *testRelay) position(t testing.TB) (*kafka.Sink, *cdc.PositionRecord) {
	t.Helper()
	r.kafka.AwaitDecided(t, r.positionTopic())
	c, err := loadConfig(configInput{file: r.config})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		t.Fatal(err)
	}
	facts, err := sink.Advise(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if facts.Record == nil {
		t.Fatalf("topic %s has no position record", r.positionTopic())
	}
	return sink, facts.Record
}

// rewriteRecord commits a changed position record.
func (r *testRelay) rewriteRecord(t testing.TB, change func(*cdc.PositionRecord)) {
	t.Helper()
	sink, record := r.position(t)
	change(record)
	if err := sink.Commit(t.Context(), record); err != nil {
		t.Fatal(err)
	}
}

// TestWhatComesBack breaks what a restart or another person may mend: run keeps
// trying, says so with the way out, and ends with 0 when it is asked to.
func TestWhatComesBack(t *testing.T) {
	t.Parallel()
	t.Run("role without REPLICATION", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		r.init(t)
		ids := r.insert(t, 2)
		role := r.slot() + "_role"
		r.exec(t, `CREATE ROLE "`+role+`" LOGIN`)
		t.Cleanup(func() {
			if _, err := r.db.Exec(context.WithoutCancel(t.Context()), `DROP ROLE "`+role+`"`); err != nil {
				t.Error(err)
			}
		})
		r.writeConfig(t, r.postgres.DSN(r.database, role), "")
		run := r.wantRetrying(t, "REPLICATION", "42501")
		r.exec(t, `ALTER ROLE "`+role+`" REPLICATION`)
		r.wantPublished(t, ids)
		run.stop(t, exitFine)
	})
	t.Run("wrong password, then the right one in the file", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		r.init(t)
		ids := r.insert(t, 2)
		role := r.slot() + "_login"
		r.exec(t, `CREATE ROLE "`+role+`" LOGIN REPLICATION`)
		t.Cleanup(func() {
			if _, err := r.db.Exec(context.WithoutCancel(t.Context()), `DROP ROLE "`+role+`"`); err != nil {
				t.Error(err)
			}
		})
		r.postgres.RequirePassword(t, role, "canary-right")
		file := filepath.Join(t.TempDir(), "dsn")
		writeDSN := func(password string) {
			dsn := strings.Replace(r.postgres.DSN(r.database, role), role+"@", role+":"+password+"@", 1)
			if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		writeDSN("canary-wrong")
		r.writeConfig(t, "", "")
		text, err := os.ReadFile(r.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.config, bytes.Replace(text, []byte(`dsn: ""`), []byte(fmt.Sprintf("dsn_file: %q", file)), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		run := r.wantRetrying(t, "28P01", role)
		writeDSN("canary-right")
		r.wantPublished(t, ids)
		run.stop(t, exitFine)
		if strings.Contains(run.stderr.String()+run.stdout.String(), "canary") {
			t.Errorf("a password is in the output:\n%s", run.stderr.String())
		}
	})
	t.Run("Kafka away at the start", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.StartKafka(t))
		r.init(t)
		ids := r.insert(t, 2)
		before := r.confirmed(t)
		r.kafka.Stop(t)
		run := r.wantRetrying(t, r.kafka.Brokers()[0])
		if after := r.confirmed(t); after != before {
			t.Errorf("the slot was moved from %s to %s", before, after)
		}
		r.kafka.Start(t)
		r.wantPublished(t, ids)
		run.stop(t, exitFine)
	})
	t.Run("Postgres away at the start", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		address := cdctest.Address(t)
		r.writeConfig(t, "postgres://postgres:canary-password@"+address+"/x?sslmode=disable", "")
		run := r.wantRetrying(t, address)
		run.stop(t, exitFine)
		if strings.Contains(run.stderr.String(), "canary-password") {
			t.Errorf("the password is in the log:\n%s", run.stderr.String())
		}
	})
}

// wantRetrying starts run and waits until it logs and shows that it retries.
func (r *testRelay) wantRetrying(t *testing.T, texts ...string) *command {
	t.Helper()
	run := start(t, nil, "run", "--config", r.config)
	address := run.address(t)
	eventually(t, "state retrying", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && (report.State == cdc.StateRetrying || report.State == cdc.StateStalled) && report.Cause != nil && report.Cause.Fix != ""
	})
	run.wantSaid(t, append(texts, "retrying")...)
	status := execute(t, nil, "status", "--config", r.config, "--addr", address)
	status.wantCode(t, exitUnhealthy)
	wantIn(t, status.stdout.String(), "fix")
	return run
}

// stop sends the first signal and wants an orderly end.
func (c *command) stop(t testing.TB, code int) {
	t.Helper()
	c.signals <- syscall.SIGTERM
	c.wantCode(t, code)
	wantIn(t, c.stderr.String(), "stopping in good order")
}

func TestWrongWALLevel(t *testing.T) {
	t.Parallel()
	pg := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{"wal_level": "replica"}})
	r := newTestRelay(t, pg, cdctest.SharedKafka(t))
	for _, args := range [][]string{{"init", "--apply", "--with-table"}, {"run"}} {
		c := execute(t, nil, append(args, "--config", r.config)...)
		c.wantCode(t, exitHalt)
		wantIn(t, c.stderr.String(), "wal_level is replica", "fix: ", "ALTER SYSTEM SET wal_level")
	}
	run := start(t, nil, "run", "--init", "--stay-up", "--config", r.config)
	address := run.address(t)
	eventually(t, "state halted", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && report.State == cdc.StateHalted && report.Cause != nil
	})
	run.stop(t, exitHalt)
	checked := execute(t, nil, "check", "--config", r.config)
	checked.wantCode(t, exitUnhealthy)
	wantIn(t, checked.stdout.String(), "wal_level", "fail", "fix: ")
}

// TestSomethingElseInsteadOfPostgres connects to a server that greets in
// another protocol.
func TestSomethingElseInsteadOfPostgres(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-served })
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.writeConfig(t, "postgres://postgres:canary-password@"+listener.Addr().String()+"/x?sslmode=disable", "")
	for _, args := range [][]string{{"run"}, {"init", "--apply"}} {
		c := execute(t, nil, append(args, "--config", r.config)...)
		c.wantCode(t, exitHalt)
		wantIn(t, c.stderr.String(), "fix: ")
		if strings.Contains(c.stderr.String(), "canary-password") {
			t.Errorf("the password is in the log:\n%s", c.stderr.String())
		}
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a slot without a position record", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		r.exec(t, `SELECT pg_create_logical_replication_slot('`+r.slot()+`', 'pgoutput')`)
		c := execute(t, nil, "init", "--apply", "--with-table", "--config", r.config)
		c.wantCode(t, exitHalt)
		wantIn(t, c.stderr.String(), "position-missing", "has no position record", "fix: ", "pg_drop_replication_slot")
		if c.stdout.String() != "" {
			t.Errorf("something was made first:\n%s", c.stdout.String())
		}
	})
	t.Run("a position record without a slot", func(t *testing.T) {
		t.Parallel()
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		r.init(t)
		r.dropSlot(t)
		c := execute(t, nil, "init", "--apply", "--config", r.config)
		c.wantCode(t, exitHalt)
		wantIn(t, c.stderr.String(), "slot-lost", "would pass over", "fix: ")
	})
}

func TestInitFinishesWhatItBegan(t *testing.T) {
	t.Parallel()
	for _, slot := range []bool{false, true} {
		t.Run(fmt.Sprintf("slot made: %t", slot), func(t *testing.T) {
			t.Parallel()
			r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
			r.init(t)
			r.rewriteRecord(t, func(p *cdc.PositionRecord) { p.State = cdc.RecordInitialising })
			want := "already there  slot "
			var ids []string
			if slot {
				ids = r.insert(t, 2) // behind the slot's consistent point
			} else {
				r.dropSlot(t)
				want = "created        slot "
			}
			c := execute(t, nil, "init", "--apply", "--config", r.config)
			c.wantCode(t, exitFine)
			wantIn(t, c.stdout.String(), want, "created        position record")
			ids = append(ids, r.insert(t, 1)...)
			execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
			r.wantPublished(t, ids)
		})
	}
}

// TestRunInit starts before Kafka does and makes everything by itself.
func TestRunInit(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.StartKafka(t))
	r.init(t) // for the table
	r.dropSlot(t)
	r.deleteTopic(t, r.positionTopic())
	r.kafka.Stop(t)
	run := start(t, nil, "run", "--init", "--config", r.config)
	eventually(t, "init waits for Kafka", func() bool { return strings.Contains(run.stderr.String(), "init waits") })
	r.kafka.Start(t)
	address := run.address(t)
	eventually(t, "streaming", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && report.Healthy && report.State == cdc.StateStreaming
	})
	r.wantPublished(t, r.insert(t, 2))
	run.stop(t, exitFine)
	again := start(t, nil, "run", "--init", "--once", "--config", r.config)
	again.wantCode(t, exitFine)
}

// TestReplicasInitTogether starts two relays of one name that find nothing.
func TestReplicasInitTogether(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	ddl, err := sql.Outbox("public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	r.exec(t, ddl)
	runs := []*command{start(t, nil, "run", "--init", "--config", r.config), start(t, nil, "run", "--init", "--config", r.config)}
	eventually(t, "one streams and one stands by", func() bool {
		states := map[cdc.State]int{}
		for _, run := range runs {
			report, err := relayReport(t.Context(), run.address(t))
			if err != nil {
				return false
			}
			states[report.State]++
		}
		return states[cdc.StateStreaming] == 1 && states[cdc.StateStandby] == 1
	})
	ids := r.insert(t, 3)
	r.wantPublished(t, ids)
	for _, run := range runs {
		run.stop(t, exitFine)
	}
	r.wantPublished(t, ids)
}

// TestStayUp keeps the admin port after a halt.
func TestStayUp(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.dropSlot(t)
	run := start(t, nil, "run", "--stay-up", "--config", r.config)
	address := run.address(t)
	eventually(t, "state halted", func() bool {
		report, err := relayReport(t.Context(), address)
		return err == nil && report.State == cdc.StateHalted && report.Cause.Reason == cdc.HaltSlotLost
	})
	code, _, err := adminGet(t.Context(), address, "/readyz", nil, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusServiceUnavailable {
		t.Errorf("readyz of a halted relay: HTTP %d", code)
	}
	run.stop(t, exitHalt)
}

func TestAdminPortTaken(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	c := execute(t, nil, "run", "--config", r.config, "--set", "admin.listen="+listener.Addr().String())
	c.wantCode(t, exitFailure)
	wantIn(t, c.stderr.String(), "the admin port cannot listen", "fix: ")
}
