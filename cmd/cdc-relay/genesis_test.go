package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestPlanGenesis(t *testing.T) {
	record := func(state cdc.RecordState, systemID string) *cdc.PositionRecord {
		return &cdc.PositionRecord{State: state, SystemID: systemID, RecordedLSN: 0x10}
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
		{"both exist", sound, record(cdc.RecordRunning, "7"), planNone, ""},
		{"slot without record", sound, nil, 0, cdc.HaltPositionMissing},
		{"record without slot", nil, record(cdc.RecordRunning, "7"), 0, cdc.HaltSlotLost},
		{"unfinished, no slot", nil, record(cdc.RecordInitialising, "7"), planFinish, ""},
		{"unfinished, slot", sound, record(cdc.RecordInitialising, "7"), planFinish, ""},
		{"unfinished, slot active", &cdc.SlotFacts{Plugin: "pgoutput", Active: true}, record(cdc.RecordInitialising, "7"), 0, cdc.HaltSetup},
		{"unfinished, slot lost", &cdc.SlotFacts{Plugin: "pgoutput", WALStatus: "lost"}, record(cdc.RecordInitialising, "7"), 0, cdc.HaltSlotLost},
		{"unfinished, slot of another plugin", &cdc.SlotFacts{Plugin: "test_decoding"}, record(cdc.RecordInitialising, "7"), 0, cdc.HaltSlotLost},
		{"resync under way", sound, record(cdc.RecordResyncing, "7"), 0, cdc.HaltResyncUnfinished},
		{"other server", sound, record(cdc.RecordRunning, "8"), 0, cdc.HaltOtherDatabase},
		{"other server, unfinished", nil, record(cdc.RecordInitialising, "8"), 0, cdc.HaltOtherDatabase},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, problem := planGenesis("payments", &cdc.SourceFacts{SystemID: "7", Slot: test.slot}, "payments_outbox", test.record)
			wantPlan(t, got, problem, test.want, test.refuse)
		})
	}
}

// wantPlan compares a plan of init, or the refusal where there is to be one.
func wantPlan(t *testing.T, got plan, problem *cdc.Problem, want plan, refuse cdc.HaltReason) {
	t.Helper()
	if refuse == "" {
		if problem != nil || got != want {
			t.Errorf("got %d, %v, want %d", got, problem, want)
		}
		return
	}
	if problem == nil || problem.Reason != refuse || problem.Treatment != cdc.Halt || problem.Why == "" || problem.Fix == "" {
		t.Errorf("got %d, %+v, want the refusal %s with why and fix", got, problem, refuse)
	}
}

// beatingStream counts heartbeats and breaks at one of them.
type beatingStream struct {
	cdc.Stream
	beats, breakAt int
	onBeat         func() // may be nil
}

func (s *beatingStream) StatusInterval() time.Duration { return time.Millisecond }

func (s *beatingStream) Status(confirmed cdc.LSN, _ bool) error {
	if confirmed != 0 {
		return errors.New("acknowledged something")
	}
	if s.onBeat != nil {
		s.onBeat()
	}
	if s.beats++; s.beats == s.breakAt {
		return errors.New("broken")
	}
	return nil
}

func TestKeepAlive(t *testing.T) {
	t.Run("beats until the work is done", func(t *testing.T) {
		done := make(chan error, 1)
		finish := sync.OnceFunc(func() { done <- nil }) // at the first beat
		stream := &beatingStream{onBeat: finish}
		if err := keepAlive(stream, done, func() {}); err != nil || stream.beats == 0 {
			t.Errorf("got %v after %d beats", err, stream.beats)
		}
	})
	t.Run("cancels the work when the stream breaks", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { <-ctx.Done(); done <- ctx.Err() }()
		if err := keepAlive(&beatingStream{breakAt: 2}, done, cancel); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
