package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestFactsHaveTheHistoryOfAPromotedServer(t *testing.T) {
	server := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	f := newFixture(t, server)
	f.exec(t, plainOutbox)
	f.publish(t)
	server.Stop(t, "fast")
	if err := os.WriteFile(filepath.Join(server.DataDir(), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
	f.sql = server.Connect(t, f.database)
	f.exec(t, `SELECT pg_promote()`)
	f.slot(t)
	s := f.attach(t)
	facts, err := s.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l := facts.Lineage; facts.Timeline != 2 || len(l) != 2 || l[0].Timeline != 1 || l[0].Switch == 0 || l[1] != (cdc.TimelineSpan{Timeline: 2}) {
		t.Errorf("timeline %d, lineage %+v", facts.Timeline, facts.Lineage)
	}
}

func TestFactsAreRefusedWhenTheSlotIsNotOurs(t *testing.T) {
	f, other := ready(t, cdctest.SharedPostgres(t)), ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	otherCfg := f.cfg
	otherCfg.Slot = other.cfg.Slot // as if ours had been taken over by somebody else
	s.cfg = &otherCfg
	_, err := s.Facts(t.Context())
	wantProblem(t, err, cdc.Retry, "", "no longer held by this stream")
	if s.guard != nil {
		t.Error("the guard was started")
	}
}
