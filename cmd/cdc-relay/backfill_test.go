package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func (r *testRelay) backfill(t testing.TB, addr string, args ...string) *backfillReport {
	t.Helper()
	c := execute(t, nil, append([]string{"backfill", "--config", r.config, "--addr", addr, "-o", "json"}, args...)...)
	c.wantCode(t, exitFine)
	var report backfillReport
	if err := json.Unmarshal([]byte(c.stdout.String()), &report); err != nil {
		t.Fatalf("%v in %s", err, c.stdout.String())
	}
	return &report
}

func TestBackfill(t *testing.T) {
	t.Parallel()
	r, addr, lost := auditedRelay(t, cdctest.SharedPostgres(t), 12)
	published := r.insert(t, 6)
	r.publishedBy(t, addr)

	dry := r.backfill(t, addr, "--since", "1h", "--dry-run")
	if dry.Missing != 12 || dry.Published != 0 || len(dry.IDs) != 12 || dry.Rows != 18 {
		t.Errorf("the dry run says %+v", dry)
	}
	one := r.backfill(t, addr, "--ids", lost[3]+","+published[0])
	if one.Missing != 1 || one.Published != 1 || one.Rows != 2 || one.IDs[0].String() != lost[3] {
		t.Errorf("backfill of two ids says %+v", one)
	}
	all := r.backfill(t, addr, "--since", "1h")
	if all.Missing != 11 || all.Published != 11 {
		t.Errorf("backfill says %+v", all)
	}
	if again := r.backfill(t, addr, "--since", "1h"); again.Missing != 0 || again.Published != 0 {
		t.Errorf("a second backfill says %+v", again)
	}
	r.wantPublished(t, append(lost, published...))
	if report := r.auditReport(t, exitFine, addr); report.Found != 18 || report.Backfilled != 12 || report.Changed+report.WrongPlace != 0 {
		t.Errorf("the audit says %+v", report)
	}
	r.wantMarks(t, lost, map[string]int{one.Run: 1, all.Run: 11})
	more := r.insert(t, 2)
	r.publishedBy(t, addr) // the relay was not disturbed
	r.wantPublished(t, append(append(lost, published...), more...))
}

// wantMarks reads the records of these ids and counts the runs that they name.
func (r *testRelay) wantMarks(t testing.TB, ids []string, want map[string]int) {
	t.Helper()
	got := map[string]int{}
	left := strings.Join(ids, " ")
	client := r.kafka.Client(t, kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	for n := 0; n < len(ids); {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, record := range fetches.Records() {
			headers := map[string]string{}
			for _, h := range record.Headers {
				headers[h.Key] = string(h.Value)
			}
			if !strings.Contains(left, headers["ce_id"]) {
				continue
			}
			n++
			got[headers[audit.HeaderBackfill]]++
			if headers["cdc-relay-position"] != "" || headers["ce_sequence"] != "" || time.Since(record.Timestamp) > time.Minute {
				t.Errorf("a backfilled record of %s has headers %v", record.Timestamp, headers)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}

// A backfill that was killed, one that another took over, and one that was
// stopped leave nothing twice and nothing out.
func TestBackfillIsResumed(t *testing.T) {
	t.Parallel()
	r, addr, lost := auditedRelay(t, cdctest.SharedPostgres(t), 300) // at this rate a minute's work: none gets to the end
	args := []string{"--addr", addr, "--since", "1h", "--rate", "5"}
	awaitRuns := r.watchRuns(t)
	killed := startProcess(t, append([]string{"backfill", "--config", r.config}, args...)...)
	awaitRuns(1)
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	fenced := start(t, nil, append([]string{"backfill", "--config", r.config}, args...)...)
	awaitRuns(2)
	stopped := start(t, nil, append([]string{"backfill", "--config", r.config}, args...)...)
	fenced.wantCode(t, exitFailure)
	wantIn(t, fenced.stderr.String(), "backfill 5 records failed")
	awaitRuns(3)
	stopped.signals <- syscall.SIGTERM
	stopped.wait(t)
	rest := r.backfill(t, addr, "--since", "1h", "--rate", "0")
	if rest.Published == 0 || rest.Published > int64(len(lost)-15) || rest.Missing != rest.Published {
		t.Errorf("the last backfill says %+v", rest)
	}
	r.wantPublished(t, lost)
	if report := r.auditReport(t, exitFine, addr); report.Found != 300 || report.Backfilled != 300 {
		t.Errorf("the audit says %+v", report)
	}
}

// startProcess runs a command line in a process of its own, which ends with the
// test: the test binary is cdc-relay when it is called so.
func startProcess(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: self, Args: append([]string{"cdc-relay"}, args...), Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

// watchRuns returns what waits until so many runs of backfill have published. The
// ends of the topic would not tell: markers of a run before move them too.
func (r *testRelay) watchRuns(t testing.TB) (await func(n int)) {
	t.Helper()
	client := r.kafka.Client(t, kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	runs := map[string]bool{}
	return func(n int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for len(runs) < n {
			fetches := client.PollFetches(ctx)
			if err := fetches.Err0(); err != nil {
				t.Fatalf("%d of %d runs of backfill have published: %v", len(runs), n, err)
			}
			fetches.EachRecord(func(record *kgo.Record) { runs[findHeader(record, audit.HeaderBackfill)] = true })
		}
	}
}
