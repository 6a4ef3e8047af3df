package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestPlanAtLeastOnce(t *testing.T) {
	record := func(state cdc.RecordState, systemID string) *cdc.PositionRecord {
		return &cdc.PositionRecord{State: state, SystemID: systemID}
	}
	sound := &cdc.SlotFacts{Plugin: "pgoutput", WALStatus: "reserved"}
	tests := []struct {
		name   string
		slot   *cdc.SlotFacts
		record *cdc.PositionRecord
		want   plan
		refuse cdc.HaltReason
	}{
		{"nothing exists", nil, nil, planFresh, ""},
		{"slot exists", sound, nil, planNone, ""},
		{"slot is lost", &cdc.SlotFacts{Plugin: "pgoutput", WALStatus: "lost"}, nil, 0, cdc.HaltSlotLost},
		{"slot of another plugin", &cdc.SlotFacts{Plugin: "test_decoding"}, nil, 0, cdc.HaltSlotLost},
		{"after exactly-once", sound, record(cdc.RecordRunning, "7"), planNone, ""},
		{"after exactly-once, no slot", nil, record(cdc.RecordRunning, "7"), 0, cdc.HaltSlotLost},
		{"after exactly-once, other server", sound, record(cdc.RecordRunning, "8"), 0, cdc.HaltOtherDatabase},
		{"after an unfinished init, no slot", nil, record(cdc.RecordInitialising, "7"), planFresh, ""},
		{"after an unfinished init", sound, record(cdc.RecordInitialising, "7"), planNone, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, problem := planAtLeastOnce("payments", &cdc.SourceFacts{SystemID: "7", Slot: test.slot}, "payments_outbox", test.record)
			wantPlan(t, got, problem, test.want, test.refuse)
		})
	}
}

// atLeastOnceRelay has its own topic and no position topic.
func atLeastOnceRelay(t *testing.T) *testRelay {
	r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
	r.deliver(t, cdc.AtLeastOnce)
	return r
}

// deliver changes the mode in the configuration.
func (r *testRelay) deliver(t *testing.T, mode cdc.Mode) {
	t.Helper()
	r.writeConfig(t, r.postgres.DSN(r.database, "postgres"), "delivery: "+string(mode)+"\n")
}

func (r *testRelay) hasPositionTopic(t *testing.T) bool {
	t.Helper()
	name := r.positionTopic()
	topics, err := kadm.NewClient(r.kafka.Client(t)).ListTopics(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return topics.Has(name)
}

func TestAtLeastOnceFromInitToStatus(t *testing.T) {
	t.Parallel()
	r := atLeastOnceRelay(t)
	early := execute(t, nil, "run", "--config", r.config)
	early.wantCode(t, exitHalt)
	execute(t, nil, "run", "--config", r.config, "--init").wantCode(t, exitUsage)

	first := execute(t, nil, "init", "--config", r.config, "--apply", "--with-table")
	first.wantCode(t, exitFine)
	wantIn(t, first.stdout.String(), "created        table public.outbox", "created        publication "+r.slot(), "created        slot "+r.slot())
	second := execute(t, nil, "init", "--config", r.config, "--apply", "--with-table")
	second.wantCode(t, exitFine)
	if text := second.stdout.String(); strings.Contains(text, "created") || strings.Contains(text, "position") {
		t.Errorf("the second init says:\n%s", text)
	}
	check := execute(t, nil, "check", "--config", r.config)
	check.wantCode(t, exitFine)
	wantIn(t, check.stdout.String(), "at-least-once needs none")

	ids := append(r.insert(t, 1), r.insert(t, 20)...)
	execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
	r.wantPublished(t, ids)
	more := r.insert(t, 3)
	execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)
	r.wantPublished(t, append(ids, more...)) // in good order nothing is repeated
	if r.hasPositionTopic(t) {
		t.Error("there is a position topic")
	}

	r.awaitFreeSlot(t, r.slot())
	status := execute(t, nil, "status", "--config", r.config, "-o", "json")
	status.wantCode(t, exitUnhealthy)
	var report statusReport
	if err := json.Unmarshal([]byte(status.stdout.String()), &report); err != nil {
		t.Fatal(err)
	}
	if report.Delivery != cdc.AtLeastOnce || len(report.Unhealthy) != 1 || !strings.Contains(report.Unhealthy[0], "not active") {
		t.Errorf("status: delivery %q, unhealthy %q, want only that nobody streams", report.Delivery, report.Unhealthy)
	}
	text := execute(t, nil, "status", "--config", r.config)
	text.wantCode(t, exitUnhealthy)
	wantIn(t, text.stdout.String(), "delivery     at-least-once")
}

// Between the modes there is one way only.
func TestDeliveryModeChange(t *testing.T) {
	t.Parallel()
	t.Run("exactly-once does not follow at-least-once without any record", func(t *testing.T) {
		r := atLeastOnceRelay(t)
		r.init(t)
		r.deliver(t, cdc.ExactlyOnce)
		run := execute(t, nil, "run", "--config", r.config, "--once")
		run.wantCode(t, exitHalt)
		wantIn(t, run.stderr.String(), string(cdc.HaltPositionMissing))
		init := execute(t, nil, "init", "--config", r.config, "--apply")
		init.wantCode(t, exitHalt)
		wantIn(t, init.stderr.String(), string(cdc.HaltPositionMissing))
	})
	t.Run("exactly-once, at-least-once, exactly-once", func(t *testing.T) {
		r := newTestRelay(t, cdctest.SharedPostgres(t), cdctest.SharedKafka(t))
		r.init(t)
		ids := r.insert(t, 5)
		execute(t, nil, "run", "--config", r.config, "--once").wantCode(t, exitFine)

		r.deliver(t, cdc.AtLeastOnce)
		ids = append(ids, r.insert(t, 5)...)
		changed := execute(t, nil, "run", "--config", r.config, "--once")
		changed.wantCode(t, exitFine)
		const told = "delivery is at-least-once from now on"
		wantIn(t, changed.stderr.String(), told)
		r.wantPublished(t, ids)
		again := execute(t, nil, "run", "--config", r.config, "--once")
		again.wantCode(t, exitFine)
		if strings.Contains(again.stderr.String(), told) {
			t.Error("a change of the mode is told again")
		}

		r.deliver(t, cdc.ExactlyOnce)
		for range 2 { // what the first writes must not let the second go on
			back := execute(t, nil, "run", "--config", r.config, "--once")
			back.wantCode(t, exitHalt)
			wantIn(t, back.stderr.String(), string(cdc.HaltModeChanged))
		}
		r.wantPublished(t, ids)
	})
}
