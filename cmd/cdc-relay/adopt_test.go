package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// command runs skip, adopt or resync and returns what it says.
func (r *testRelay) command(t *testing.T, code int, args ...string) *commandReport {
	t.Helper()
	c := execute(t, nil, slices.Concat(args, []string{"--config", r.config, "-o", "json"})...)
	c.wantCode(t, code)
	report := &commandReport{}
	if c.stdout.String() != "" {
		if err := json.Unmarshal([]byte(c.stdout.String()), report); err != nil {
			t.Fatalf("%v in %s", err, c.stdout.String())
		}
	}
	return report
}

// Partitions that were added stay unused until they are adopted.
func TestAdoptPartitions(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	ids := r.insert(t, 5)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	if nothing := r.command(t, exitFine, "adopt", "--partitions", "--confirm"); nothing.Done || nothing.Finding != "" {
		t.Errorf("without more partitions: %+v", nothing)
	}
	if _, err := kadm.NewClient(r.kafka.Client(t)).UpdatePartitions(t.Context(), 12, r.topic); err != nil {
		t.Fatal(err)
	}
	r.awaitPartitions(t, r.topic, 12)
	ids = append(ids, r.insert(t, 5)...)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	used := r.partitionsUsed(t, len(ids))
	if slices.Max(used) > 2 {
		t.Errorf("partitions %v are used before anybody adopted more", used)
	}
	if shown := r.command(t, exitFine, "adopt", "--partitions"); shown.Done || len(shown.Does) != 1 || !strings.Contains(shown.Does[0], "12 partitions instead of 3") {
		t.Errorf("it would do %+v", shown)
	}
	if done := r.command(t, exitFine, "adopt", "--partitions", "--confirm"); !done.Done || done.Left != "" {
		t.Errorf("it did %+v", done)
	}
	ids = append(ids, r.insert(t, 5)...)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	if used = r.partitionsUsed(t, len(ids)); slices.Max(used) < 3 {
		t.Errorf("only partitions %v are used", used)
	}
	r.wantPublished(t, ids)
}

func (r *testRelay) partitionsUsed(t *testing.T, n int) (used []int32) {
	t.Helper()
	for _, record := range r.records(t, r.topic, n) {
		used = append(used, record.Partition)
	}
	slices.Sort(used)
	return slices.Compact(used)
}

// A relay that ran at least once has no position topic at all.
func TestAdoptFromSlotAfterAtLeastOnce(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.writeConfig(t, r.postgres.DSN(r.database, "postgres"), "delivery: at-least-once")
	r.init(t)
	ids := r.insert(t, 4)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	refused := execute(t, nil, "adopt", "--from-slot", "--config", r.config)
	refused.wantCode(t, exitUsage)
	wantIn(t, refused.stderr.String(), "does not go with delivery: at-least-once")

	r.writeConfig(t, r.postgres.DSN(r.database, "postgres"), "")
	halted := execute(t, nil, "run", "--config", r.config)
	halted.wantCode(t, exitHalt)
	wantIn(t, halted.stderr.String(), "position-missing", "cdc-relay adopt --from-slot --confirm")
	ids = append(ids, r.insert(t, 4)...)
	if shown := r.command(t, exitFine, "adopt", "--from-slot"); shown.Done || shown.Reason != cdc.HaltPositionMissing || shown.EventCount != 0 {
		t.Errorf("it would do %+v", shown)
	}
	if done := r.command(t, exitFine, "adopt", "--from-slot", "--confirm"); !done.Done || done.Left != "" {
		t.Errorf("it did %+v", done)
	}
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)
	r.wantPublished(t, ids)
}

// The text of what a command would do is for people; every choice is one of the flags.
func TestAdoptUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--stream", "--from-slot"}, {"--topic", "a", "--partitions"}} {
		c := execute(t, nil, append([]string{"adopt", "--config", "none.yaml"}, args...)...)
		c.wantCode(t, exitUsage)
		wantIn(t, c.stderr.String(), "say what to adopt")
	}
	for _, position := range []string{"", "0/16B3748:1", "0001-00000000016b3600-00000000"} {
		execute(t, nil, "skip", "--config", "none.yaml", "--position", position).wantCode(t, exitUsage)
	}
	execute(t, nil, "resync", "--config", "none.yaml", "--assume-published-before", "tomorrow").wantCode(t, exitUsage)
}

// A command that finds the slot in use says who has to stop.
func TestCommandBesideARelay(t *testing.T) {
	t.Parallel()
	r, _, _ := auditedRelay(t, cdctest.SharedPostgres(t), 0)
	ids := r.insert(t, 3)
	eventually(t, "the slot is held", func() bool {
		var active bool
		err := r.db.QueryRow(t.Context(), "SELECT active FROM pg_replication_slots WHERE slot_name = $1", r.slot()).Scan(&active)
		return err == nil && active
	})
	c := start(t, nil, "adopt", "--stream", "--config", r.config)
	d := start(t, nil, "resync", "--confirm", "--config", r.config)
	c.wantCode(t, exitFailure)
	d.wantCode(t, exitFailure)
	wantIn(t, c.stderr.String(), fmt.Sprintf("slot %q is held", r.slot()), "stop the relay")
	wantIn(t, d.stderr.String(), fmt.Sprintf("slot %q is held", r.slot()), "stop the relay")
	r.wantPublished(t, ids)
}
