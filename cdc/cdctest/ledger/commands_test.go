package ledger_test

import (
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestAdoptIsKilled kills an adoption before, in the middle of and behind its
// transaction, while rows are written. Each time the next one finds what is true,
// and in the end the history is exact.
func TestAdoptIsKilled(t *testing.T) {
	t.Parallel()
	e := environment(t, relaytest.Build(t, "failpoints"), "")
	l := e.Watch(t, ledger.Config{RowsPerSecond: 200, Seed: cdctest.Seed(t)})
	relay := relaytest.Start(t, e.Options())
	l.WaitSeen(t, 100, time.Minute)
	if relay.Kill(); !relay.KilledBy(syscall.SIGKILL) {
		t.Fatalf("the relay ended by itself: exit code %d", relay.ExitCode())
	}
	// Altered and altered back: no row is passed over.
	if _, err := e.Postgres.Connect(t, e.Database).Exec(t.Context(), `ALTER PUBLICATION `+e.Publication+` SET (publish = 'insert, update'); ALTER PUBLICATION `+e.Publication+` SET (publish = 'insert')`); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{"publish.begin:1", "publish.flushed:1", "publish.ended:1"} {
		if p := command(t, e, []string{"CDC_RELAY_FAILPOINT=" + point}, "adopt", "--stream", "--confirm"); !p.KilledBy(syscall.SIGKILL) {
			t.Fatalf("the command came through %s: exit code %d\n%s%s", point, p.ExitCode(), p.Stdout(), p.Stderr())
		}
		var shown struct {
			Reason cdc.HaltReason `json:"reason"`
		}
		p := command(t, e, nil, "adopt", "--stream", "-o", "json")
		if err := json.Unmarshal([]byte(p.Stdout()), &shown); err != nil || p.ExitCode() != 0 {
			t.Fatalf("exit code %d, %v in %s%s", p.ExitCode(), err, p.Stdout(), p.Stderr())
		}
		if done := point == "publish.ended:1"; done != (shown.Reason == "") {
			t.Errorf("killed at %s, the next command finds %q", point, shown.Reason)
		}
	}
	next := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, 200, time.Minute)
	l.Stop(t)
	next.Stop(t)
	l.RequireExact(t, 200)
}
