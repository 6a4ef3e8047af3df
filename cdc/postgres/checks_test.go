package postgres

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func findings(t *testing.T, f *fixture) map[string]Finding {
	t.Helper()
	all := map[string]Finding{}
	for _, finding := range f.source(t).Check(t.Context()) {
		if finding.Problem == "" || (finding.Level == LevelFail || finding.Level == LevelWarn) && finding.Fix == "" || finding.Level == LevelSkipped && finding.Why == "" {
			t.Errorf("incomplete: %+v", finding)
		}
		if _, twice := all[finding.Name]; twice {
			t.Errorf("%s comes twice", finding.Name)
		}
		all[finding.Name] = finding
	}
	return all
}

func wantLevels(t *testing.T, got map[string]Finding, want map[string]Level) {
	t.Helper()
	for name, level := range want {
		if got[name].Level != level {
			t.Errorf("%s: got %+v, want %s", name, got[name], level)
		}
	}
}

func TestCheckFindsAGoodSetupGood(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	got := findings(t, f)
	wantLevels(t, got, map[string]Level{
		checkConnection: LevelOK, checkTLS: LevelOK, checkVersion: LevelOK, checkRecovery: LevelOK, checkWALLevel: LevelOK, checkRole: LevelOK, checkTable: LevelOK,
		checkColumns: LevelOK, checkPublication: LevelOK, checkInsertOnly: LevelOK, checkSlot: LevelOK, checkSlotActive: LevelOK, checkIdle: LevelOK,
	})
	if !strings.Contains(got[checkSlotActive].Problem, "application cdc-relay") {
		t.Errorf("pid %d: %+v", s.pid, got[checkSlotActive])
	}
}

func TestCheckGoesOnAfterEveryFailure(t *testing.T) {
	t.Run("nothing was made, and the role is a superuser", func(t *testing.T) {
		f := newFixture(t, cdctest.SharedPostgres(t))
		f.cfg.DSN = func() (string, error) { return f.server.DSN(f.database, "postgres"), nil }
		wantLevels(t, findings(t, f), map[string]Level{
			checkConnection: LevelOK, checkRole: LevelWarn, checkTable: LevelFail, checkColumns: LevelSkipped, checkPublication: LevelFail,
			checkInsertOnly: LevelSkipped, checkSlot: LevelFail, checkSlotActive: LevelSkipped, checkSender: LevelOK,
		})
	})
	t.Run("too much is published", func(t *testing.T) {
		f := ready(t, cdctest.SharedPostgres(t))
		f.exec(t, `ALTER PUBLICATION "pub ""of"" it's" SET (publish = 'insert, update')`)
		got := findings(t, f)
		wantLevels(t, got, map[string]Level{checkPublication: LevelOK, checkInsertOnly: LevelWarn})
		if !strings.Contains(got[checkInsertOnly].Problem, "updates") {
			t.Errorf("%+v", got[checkInsertOnly])
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		f := newFixture(t, cdctest.SharedPostgres(t))
		f.cfg.DSN = func() (string, error) { return "host=127.0.0.1 port=1 user=u", nil }
		got := findings(t, f)
		if len(got) != 17 {
			t.Errorf("%d findings", len(got))
		}
		for name, finding := range got {
			if want := map[bool]Level{true: LevelFail, false: LevelSkipped}[name == checkConnection]; finding.Level != want {
				t.Errorf("%s: %+v", name, finding)
			}
		}
	})
}
