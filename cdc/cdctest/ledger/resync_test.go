package ledger_test

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestResyncUnderLoadAndKills drops the slot while rows are written, and kills
// the resync at one effect after the other, until one comes through. No row is
// lost, none is there twice, and what streams before and after keeps its order.
func TestResyncUnderLoadAndKills(t *testing.T) {
	t.Parallel()
	e := environment(t, relaytest.Build(t, "failpoints"), "")
	l := e.Watch(t, ledger.Config{RowsPerSecond: 400, BigTransactionRows: 700, Seed: cdctest.Seed(t)})
	relay := relaytest.Start(t, e.Options())
	l.WaitSeen(t, 300, time.Minute)
	if relay.Kill(); !relay.KilledBy(syscall.SIGKILL) {
		t.Fatalf("the relay ended by itself: exit code %d", relay.ExitCode())
	}
	dropSlot(t, e)
	// Each point, the attempt that it ends has got so far: the slot is dropped, the
	// record says resyncing, the slot is made, rows are written, rows are committed.
	for _, point := range []string{"publish.begin:1", "publish.flushed:1", "publish.ended:1", "publish.begin:2", "publish.flushed:2", "publish.ended:2"} {
		p := resync(t, e, "CDC_RELAY_FAILPOINT="+point)
		if !p.KilledBy(syscall.SIGKILL) {
			t.Fatalf("the resync came through %s: exit code %d\n%s%s", point, p.ExitCode(), p.Stdout(), p.Stderr())
		}
	}
	if p := resync(t, e); p.ExitCode() != 0 {
		t.Fatalf("the last resync ended with %d:\n%s%s", p.ExitCode(), p.Stdout(), p.Stderr())
	}
	written := l.Counts().Rows.Load()
	next := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, int(written)+300, time.Minute) // of rows that came after it
	l.Stop(t)
	next.Stop(t)
	requireResynced(t, l)
}

func dropSlot(t *testing.T, e *relaytest.Environment) {
	t.Helper()
	db := e.Postgres.Connect(t, e.Database)
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := db.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, e.Slot)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		cdctest.Pause(t, 20*time.Millisecond)
	}
}

// resync runs the command to its end.
func resync(t *testing.T, e *relaytest.Environment, env ...string) *relaytest.Process {
	t.Helper()
	return command(t, e, env, "resync", "--confirm")
}

// command runs one of the relay's commands to its end.
func command(t *testing.T, e *relaytest.Environment, env []string, args ...string) *relaytest.Process {
	t.Helper()
	options := e.Options()
	options.Command, options.Args, options.Env = args[0], args[1:], env
	p := relaytest.Start(t, options)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // some wait for a minute themselves
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		t.Fatalf("%v:\n%s", err, p.Stderr())
	}
	return p
}

// requireResynced demands everything but the order, which a resync cannot
// restore, and the order of what was not resynced.
func requireResynced(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	report := l.Report(t)
	mayDiffer := []ledger.Kind{
		ledger.PartitionOrder, ledger.Prefix, ledger.KeyOrder, ledger.HeaderOrder, ledger.HeaderMismatch,
		ledger.PositionRow, ledger.KafkaTransaction,
		ledger.AckAhead, // a slot that is made anew stands where nothing is recorded yet
	}
	for _, kind := range report.Kinds() {
		if !slices.Contains(mayDiffer, kind) {
			t.Errorf("%s: %d\n%s", kind, report.Count(kind), &report)
		}
	}
	streamed, resynced := 0, 0
	generations := map[uint16]int{}
	newest := map[int32]cdc.Position{}
	for _, record := range l.Observer().Seen() {
		if record.Position == (cdc.Position{}) {
			resynced++
			continue
		}
		streamed++
		generations[record.Position.Generation]++
		if record.Position.Compare(newest[record.Partition]) <= 0 {
			t.Errorf("event %s in partition %d has position %s after %s", record.ID, record.Partition, record.Position.Header(), newest[record.Partition].Header())
		}
		newest[record.Partition] = record.Position
	}
	if resynced == 0 || len(generations) != 2 || generations[1] == 0 || generations[2] == 0 {
		t.Errorf("%d records were resynced, of generations %v were streamed: nothing was tested", resynced, generations)
	}
	t.Logf("%d records streamed, %d resynced, generations %v", streamed, resynced, generations)
}
