package cdc

import (
	"strings"
	"testing"
)

// Every row of the decision table, each as one change to a pair of facts that
// resumes, and the everyday situations that must not halt.
func TestDecide(t *testing.T) {
	type world struct {
		kafka  *KafkaFacts
		source *SourceFacts
	}
	last := func(w world, commit LSN, serial uint32, complete bool, end LSN) {
		w.kafka.Record.LastRow = &LastRow{CommitLSN: commit, Serial: serial, EventID: "e", XID: 7}
		w.kafka.Record.Complete, w.kafka.Record.EndLSN = complete, end
	}
	promoted := func(w world, at LSN) {
		w.source.Timeline, w.source.Lineage = 2, Lineage{{Timeline: 1, Switch: at}, {Timeline: 2}}
	}
	tests := []struct {
		name   string
		change func(w world)
		halt   HaltReason
		resume LSN // RecordedLSN when it resumes
		first  bool
		armed  bool
	}{
		{name: "nothing changed", change: func(world) {}, resume: 0x500},
		{name: "no record", change: func(w world) { w.kafka.Record = nil }, halt: HaltPositionMissing},
		{name: "unfinished init", change: func(w world) { w.kafka.Record.State = RecordInitialising }, halt: HaltPositionMissing},
		{name: "other system id", change: func(w world) { w.source.SystemID = "8" }, halt: HaltOtherDatabase},
		{name: "other system id comes before a lost slot", change: func(w world) { w.source.SystemID = "8"; w.source.Slot = nil }, halt: HaltOtherDatabase},
		{name: "other cluster id", change: func(w world) { w.kafka.ClusterID = "other" }, halt: HaltOtherKafka},
		{name: "topic made again", change: func(w world) {
			w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{Topic: "t", ID: "2", Partitions: 3}}
		}, halt: HaltTopicRecreated},
		{name: "pinned topic is away", change: func(w world) { delete(w.kafka.Topics, "t") }, resume: 0x500},
		{name: "topic has more partitions", change: func(w world) {
			w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{Topic: "t", ID: "1", Partitions: 9}}
		}, resume: 0x500},
		{name: "unfinished resync", change: func(w world) { w.kafka.Record.State = RecordResyncing }, halt: HaltResyncUnfinished},
		{name: "other mode", change: func(w world) { w.kafka.Record.Mode = AtLeastOnce }, halt: HaltModeChanged},
		{name: "slot missing", change: func(w world) { w.source.Slot = nil }, halt: HaltSlotLost},
		{name: "slot lost", change: func(w world) { w.source.Slot.WALStatus = "lost" }, halt: HaltSlotLost},
		{name: "slot invalidated", change: func(w world) { w.source.Slot.InvalidationReason = "idle_timeout" }, halt: HaltSlotLost},
		{name: "lower timeline", change: func(w world) {
			w.kafka.Record.Lineage = Lineage{{Timeline: 1, Switch: 0x200}, {Timeline: 2}}
		}, halt: HaltDiverged},
		{name: "abandoned timeline", change: func(w world) {
			w.kafka.Record.Lineage = Lineage{{Timeline: 1, Switch: 0x200}, {Timeline: 2}}
			w.source.Lineage = Lineage{{Timeline: 1, Switch: 0x300}, {Timeline: 3}}
		}, halt: HaltDiverged},
		{name: "same switch at another point", change: func(w world) {
			w.kafka.Record.Lineage = Lineage{{Timeline: 1, Switch: 0x200}, {Timeline: 2}}
			w.source.Lineage = Lineage{{Timeline: 1, Switch: 0x210}, {Timeline: 2}}
		}, halt: HaltDiverged},
		{name: "record without lineage", change: func(w world) { w.kafka.Record.Lineage = nil }, halt: HaltDiverged},
		{name: "promoted behind a complete last row", change: func(w world) { last(w, 0x300, 1, true, 0x340); promoted(w, 0x400) }, resume: 0x400, first: true},
		{name: "promoted just at the last row's end", change: func(w world) {
			last(w, 0x300, 1, true, 0x340)
			promoted(w, 0x340)
			w.source.Slot.ConfirmedFlush = 0x340
		}, resume: 0x340, first: true},
		{name: "promoted before the last row's end", change: func(w world) { last(w, 0x300, 1, true, 0x340); promoted(w, 0x33F) }, halt: HaltDiverged},
		{name: "promoted behind a cut row", change: func(w world) { last(w, 0x300, 1, false, 0x200); promoted(w, 0x301) }, halt: HaltSlotMoved},
		{name: "promoted behind a cut row, slot before it", change: func(w world) {
			last(w, 0x300, 1, false, 0x200)
			promoted(w, 0x301)
			w.source.Slot.ConfirmedFlush = 0x200
		}, resume: 0x301, first: true, armed: true},
		{name: "promoted twice, the second standby had not reached the first switch", change: func(w world) {
			last(w, 0x300, 1, true, 0x340)
			w.source.Timeline, w.source.Lineage = 3, Lineage{{Timeline: 1, Switch: 0x400}, {Timeline: 2, Switch: 0x320}, {Timeline: 3}}
		}, halt: HaltDiverged},
		{name: "promoted twice, the second standby had not reached the first switch, behind the last row", change: func(w world) {
			last(w, 0x300, 1, true, 0x340)
			w.source.Timeline, w.source.Lineage = 3, Lineage{{Timeline: 1, Switch: 0x400}, {Timeline: 2, Switch: 0x360}, {Timeline: 3}}
			w.source.Slot.ConfirmedFlush = 0x340
		}, resume: 0x360, first: true},
		{name: "promoted at a cut row", change: func(w world) { last(w, 0x300, 1, false, 0x200); promoted(w, 0x300) }, halt: HaltDiverged},
		{name: "promoted without any row ever", change: func(w world) { promoted(w, 0x480) }, resume: 0x480, first: true},
		{name: "promoted, slot made anew behind the switch", change: func(w world) { last(w, 0x300, 1, true, 0x340); promoted(w, 0x350) }, halt: HaltSlotMoved},
		{name: "promoted and stream changed", change: func(w world) { promoted(w, 0x480); w.source.Publication.XMin++ }, halt: HaltStreamChanged},
		{name: "server behind", change: func(w world) { last(w, 0x300, 1, true, 0x340); w.source.WALEnd = 0x33F }, halt: HaltServerBehind},
		{name: "server just there", change: func(w world) { last(w, 0x300, 1, true, 0x340); w.source.WALEnd = 0x340 }, resume: 0x500},
		{name: "server ends where a cut row's commit began", change: func(w world) { last(w, 0x300, 1, false, 0x200); w.source.WALEnd = 0x300 }, halt: HaltServerBehind},
		{name: "server behind a cut row", change: func(w world) { last(w, 0x300, 1, false, 0x200); w.source.WALEnd = 0x2FF }, halt: HaltServerBehind},
		{name: "slot moved", change: func(w world) { w.source.Slot.ConfirmedFlush = 0x501 }, halt: HaltSlotMoved},
		{name: "slot just at the recorded mark", change: func(w world) { w.source.Slot.ConfirmedFlush = 0x500 }, resume: 0x500},
		{name: "slot went back", change: func(w world) { last(w, 0x300, 2, true, 0x340); w.source.Slot.ConfirmedFlush = 0x100 }, resume: 0x500, armed: true},
		{name: "slot at the commit itself", change: func(w world) { last(w, 0x300, 2, true, 0x340); w.source.Slot.ConfirmedFlush = 0x300 }, resume: 0x500, armed: true},
		{name: "publication gone", change: func(w world) { w.source.Publication = nil }, halt: HaltStreamChanged},
		{name: "publication altered", change: func(w world) { w.source.Publication.RelXMin++ }, halt: HaltStreamChanged},
		{name: "via root changed", change: func(w world) { w.source.Publication.ViaRoot = false }, halt: HaltStreamChanged},
		{name: "table made again", change: func(w world) { w.source.Table.OID++ }, halt: HaltStreamChanged},
		{name: "minor upgrade", change: func(w world) { w.source.ServerVersion++ }, resume: 0x500},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t)
			s.kafka.Record.RecordedLSN = 0x500
			s.kafka.Pins = []TopicPin{{Topic: "t", ID: "1", Partitions: 3}}
			s.kafka.Topics = map[Topic]TopicFacts{"t": {TopicPin: s.kafka.Pins[0]}}
			s.source.Slot.ConfirmedFlush = 0x400
			test.change(world{&s.kafka, &s.source})
			resume, problem := Decide(s.kafka, s.source, ExactlyOnce)
			if test.halt != "" {
				if problem == nil || problem.Reason != test.halt || problem.Treatment != Halt {
					t.Fatalf("got %v, want halt %s", problem, test.halt)
				}
				if problem.Fix == "" || !strings.Contains(problem.Error(), string(test.halt)) {
					t.Errorf("halt without a way out or a reason: %v", problem)
				}
				return
			}
			if problem != nil {
				t.Fatalf("halts: %v", problem)
			}
			if resume.RecordedLSN != test.resume || resume.RecordFirst != test.first || (resume.Witness != nil) != test.armed {
				t.Errorf("got %+v, want recorded %s, first %t, witness %t", resume, test.resume, test.first, test.armed)
			}
		})
	}
}

// In mode at-least-once only what needs no position may halt.
func TestDecideAtLeastOnce(t *testing.T) {
	tests := []struct {
		name   string
		change func(s *script)
		halt   HaltReason
	}{
		{name: "no record", change: func(s *script) { s.kafka.Record = nil }},
		{name: "unfinished init of the other mode", change: func(s *script) { s.kafka.Record.State = RecordInitialising }},
		{name: "record of this mode", change: func(s *script) { s.kafka.Record.Mode = AtLeastOnce }},
		{name: "record of mode exactly-once", change: func(*script) {}},
		{name: "rows recorded in mode exactly-once are not skipped", change: func(s *script) {
			s.kafka.Record.LastRow = &LastRow{CommitLSN: 0x900, Serial: 3, EventID: "e", XID: 7}
		}},
		{name: "slot beyond the recorded mark", change: func(s *script) { s.kafka.Record.RecordedLSN = 0x100 }},
		{name: "server behind", change: func(s *script) {
			s.kafka.Record.LastRow, s.kafka.Record.EndLSN = &LastRow{CommitLSN: 0x9000, Serial: 1}, 0x9100
		}},
		{name: "another timeline", change: func(s *script) { s.source.Timeline, s.source.Lineage = 9, Lineage{{Timeline: 9}} }},
		{name: "publication made again", change: func(s *script) { s.source.Publication.OID++ }},
		{name: "publication gone", change: func(s *script) { s.source.Publication = nil }, halt: HaltStreamChanged},
		{name: "publication gone and no record", change: func(s *script) { s.source.Publication, s.kafka.Record = nil, nil }, halt: HaltStreamChanged},
		{name: "table gone", change: func(s *script) { s.source.Table = nil }, halt: HaltStreamChanged},
		{name: "other system id", change: func(s *script) { s.source.SystemID = "8" }, halt: HaltOtherDatabase},
		{name: "other system id, but nothing to tell it by", change: func(s *script) { s.source.SystemID, s.kafka.Record = "8", nil }},
		{name: "other cluster id", change: func(s *script) { s.kafka.ClusterID = "other" }, halt: HaltOtherKafka},
		{name: "topic made again", change: func(s *script) { s.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{Topic: "t", ID: "2"}} }, halt: HaltTopicRecreated},
		{name: "unfinished resync", change: func(s *script) { s.kafka.Record.State = RecordResyncing }, halt: HaltResyncUnfinished},
		{name: "slot missing", change: func(s *script) { s.source.Slot = nil }, halt: HaltSlotLost},
		{name: "slot missing and no record", change: func(s *script) { s.source.Slot, s.kafka.Record = nil, nil }, halt: HaltSlotLost},
		{name: "slot lost and no record", change: func(s *script) { s.source.Slot.WALStatus, s.kafka.Record = "lost", nil }, halt: HaltSlotLost},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t)
			s.source.Slot.ConfirmedFlush = 0x400
			test.change(s)
			resume, problem := Decide(s.kafka, s.source, AtLeastOnce)
			switch {
			case test.halt != "":
				if problem == nil || problem.Reason != test.halt || problem.Treatment != Halt || problem.Fix == "" {
					t.Errorf("got %v, want halt %s with a way out", problem, test.halt)
				} else if strings.Contains(problem.Fix, "adopt") || strings.HasPrefix(problem.Fix, FixResync) {
					t.Errorf("the way out is none in this mode: %s", problem.Fix)
				}
			case problem != nil:
				t.Errorf("halts: %v", problem)
			case resume != Resume{RecordedLSN: 0x400}:
				t.Errorf("got %+v, want nothing but the slot's own mark", resume)
			}
		})
	}
}

// The advisory look must not compare LSNs: they move while another replica works.
func TestDecideIdentityIgnoresMarks(t *testing.T) {
	s := newScript(t)
	s.source.Slot.ConfirmedFlush, s.source.WALEnd, s.source.Lineage = 0xFFFF, 1, nil
	s.source.Publication, s.source.Table = nil, nil
	if problem := DecideIdentity(s.kafka, s.source, ExactlyOnce); problem != nil {
		t.Errorf("advisory look halts: %v", problem)
	}
}
