package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestNaiveRelayIsCaught breaks the relay on purpose and demands that the same
// ledger under the same kills goes red: faults that a broken relay survives
// prove nothing about a sound one.
func TestNaiveRelayIsCaught(t *testing.T) {
	t.Parallel()
	for _, broken := range []struct {
		name string
		file string
		old  string
		by   string
		run  func(*testing.T, *relaytest.Environment) ledger.Report
		// want must be found; also are violations that follow from it.
		want ledger.Kind
		also []ledger.Kind
	}{
		{
			name: "a relay that trusts the slot instead of the recorded position repeats rows",
			file: "cdc/streaming.go",
			old:  "\ts.record.RecordedLSN = resume.RecordedLSN\n",
			by:   "\ts.record.RecordedLSN, s.resume, s.witness = 0, Resume{}, nil\n",
			run:  underKills,
			want: ledger.Duplicate,
			also: []ledger.Kind{ledger.PositionOrder},
		},
		{
			// Killed, it would find its slot moved and halt, as it should.
			name: "a relay that acknowledges what it received is ahead of Kafka",
			file: "cdc/progress.go",
			old:  "\tnext := min(p.recorded, p.received)\n\tif owedFrom != 0 {\n",
			by:   "\tnext := p.received\n\tif false {\n",
			run:  besideBusyTable,
			want: ledger.AckAhead,
		},
	} {
		t.Run(broken.name, func(t *testing.T) {
			overlay := map[string]string{broken.file: relaytest.ReplaceOnce(t, broken.file, broken.old, broken.by)}
			e := environment(t, relaytest.BuildOverlay(t, overlay), "")
			report := broken.run(t, e)
			if report.Count(broken.want) == 0 {
				t.Fatalf("the ledger shows no %s: %s", broken.want, &report)
			}
			for _, kind := range report.Kinds() {
				if kind != broken.want && !slices.Contains(broken.also, kind) {
					t.Errorf("the ledger shows %s, which does not follow from what is broken", kind)
				}
			}
		})
	}
}

func underKills(t *testing.T, e *relaytest.Environment) ledger.Report {
	t.Helper()
	k := killing{kills: 5, rows: 3000, rowsPerSecond: 2000}
	return k.run(t, e, ledger.Config{RowsPerSecond: k.rowsPerSecond, Seed: cdctest.Seed(t)}).Report(t)
}

// besideBusyTable writes some events and then only to another table, whose WAL the
// relay has to record before it acknowledges it, until some of it is acknowledged.
func besideBusyTable(t *testing.T, e *relaytest.Environment) ledger.Report {
	t.Helper()
	l := e.Watch(t, ledger.Config{Rows: 100, Seed: cdctest.Seed(t)})
	relay := relaytest.Supervise(t, e.Options())
	l.Stop(t)
	conn := e.Postgres.Connect(t, e.Database)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE busy (filler text)"); err != nil {
		t.Fatal(err)
	}
	from := insertLSN(t, conn)
	for began := time.Now(); !l.Acknowledged(from); cdctest.Pause(t, 20*time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("no sample shows that the slot follows the WAL")
		}
		if _, err := conn.Exec(t.Context(), "INSERT INTO busy VALUES ('x')"); err != nil {
			t.Fatal(err)
		}
	}
	relay.Stop(t)
	return l.Report(t)
}
