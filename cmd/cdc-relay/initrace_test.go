package main

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// TestRunInitWaitsForAnotherInit: while another init holds the slot and has not
// committed its last record, run --init must not go on to run, which would halt
// at the unfinished record.
func TestRunInitWaitsForAnotherInit(t *testing.T) {
	t.Parallel()
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.init(t)
	r.rewriteRecord(t, func(p *cdc.PositionRecord) { p.State = cdc.RecordInitialising })
	c, err := loadConfig(configInput{file: r.config})
	if err != nil {
		t.Fatal(err)
	}
	other, err := newGenesis(c, newLogger(&c.Log, t.Output()), initOptions{apply: true})
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	stream, err := other.source.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	letGo := heartbeat(stream) // or the server takes the slot back
	defer letGo()
	run := start(t, nil, "run", "--init", "--config", r.config)
	eventually(t, "init waits, or run halted", func() bool {
		return strings.Contains(run.stderr.String(), "init waits") || strings.Contains(run.stderr.String(), string(cdc.HaltPositionMissing))
	})
	if strings.Contains(run.stderr.String(), string(cdc.HaltPositionMissing)) {
		t.Fatalf("run halted: %s", run.stderr.String())
	}
	letGo()
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	r.wantPublished(t, r.insert(t, 2))
	run.stop(t, exitFine)
}
