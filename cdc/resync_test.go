package cdc

import "testing"

func TestResyncRecords(t *testing.T) {
	kafka, source := adoptable()
	kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 6}} // made again
	kafka.Topics["u"] = TopicFacts{TopicPin: TopicPin{"u", "2", 8}} // grown
	begun, pins := BeginResync(kafka, source, 2)
	if begun.State != RecordResyncing || begun.Generation != 4 || begun.Attempt != 1 || kafka.Record.State != RecordRunning {
		t.Errorf("it begins with %+v", begun)
	}
	if want := []TopicPin{{"t", "9", 6}, {"u", "2", 4}}; len(pins) != 2 || pins[0] != want[0] || pins[1] != want[1] {
		t.Errorf("pins %v, want %v", pins, want)
	}
	kafka.Record = &begun
	if again, _ := BeginResync(kafka, source, 3); again.Generation != 4 || again.Attempt != 2 {
		t.Errorf("the second attempt begins with %+v", again)
	}
	kafka.Record = nil
	if lost, _ := BeginResync(kafka, source, 7); lost.Generation != 8 || lost.SystemID != "7" {
		t.Errorf("without a record it begins with %+v", lost)
	}

	source.Slot.ConfirmedFlush = 0x800
	ended, problem := EndResync(begun, source, 0x800)
	kafka.Record, kafka.Pins = &ended, pins
	if problem != nil || ended.State != RecordRunning || ended.RecordedLSN != 0x800 || ended.Attempt != 0 {
		t.Fatalf("it ends with %+v, %v", ended, problem)
	}
	resume, problem := Decide(kafka, source, ExactlyOnce)
	if problem != nil || resume.Witness != nil || resume.Through.Compare(Position{Generation: 4, CommitLSN: 0x800}) != 0 {
		t.Errorf("then a start decides %+v, %v", resume, problem)
	}

	for _, test := range []struct {
		name   string
		change func(source *SourceFacts)
		reason HaltReason
	}{
		{"the slot was used", func(s *SourceFacts) { s.Slot.ConfirmedFlush++ }, HaltSlotMoved},
		{"the slot is gone", func(s *SourceFacts) { s.Slot = nil }, HaltSlotMoved},
		{"another server", func(s *SourceFacts) { s.SystemID = "8" }, HaltOtherDatabase},
		{"no publication", func(s *SourceFacts) { s.Publication = nil }, HaltStreamChanged},
	} {
		_, source := adoptable()
		source.Slot.ConfirmedFlush = 0x800
		test.change(&source)
		if _, problem := EndResync(begun, source, 0x800); reasonOf(problem) != test.reason {
			t.Errorf("%s: got %v, want %s", test.name, problem, test.reason)
		}
	}
}
