package cdc

import (
	"strings"
	"testing"
)

// adoptable is a relay that streams, as TestDecide has it.
func adoptable() (KafkaFacts, SourceFacts) {
	record := &PositionRecord{
		Version: 1, State: RecordRunning, Mode: ExactlyOnce, Generation: 3, SystemID: "7", Lineage: Lineage{{Timeline: 1}},
		RecordedLSN: 0x500, LastRow: &LastRow{CommitLSN: 0x300, Serial: 2, EventID: "e", XID: 7}, Complete: true, EndLSN: 0x340, IdleLSN: 0x500,
		Publication: PublicationIdentity{Name: "p", OID: 1, XMin: 2}, Table: TableIdentity{Name: "public.outbox", OID: 5}, KafkaClusterID: "c",
	}
	kafka := KafkaFacts{
		ClusterID: "c", Record: record, Pins: []TopicPin{{Topic: "t", ID: "1", Partitions: 3}, {Topic: "u", ID: "2", Partitions: 4}},
		Topics: map[Topic]TopicFacts{"t": {TopicPin: TopicPin{Topic: "t", ID: "1", Partitions: 3}}, "u": {TopicPin: TopicPin{Topic: "u", ID: "2", Partitions: 4}}},
	}
	source := SourceFacts{
		SystemID: "7", Timeline: 1, Lineage: Lineage{{Timeline: 1}}, WALEnd: 0x900, Slot: &SlotFacts{Name: "s", ConfirmedFlush: 0x400},
		Publication: &PublicationFacts{PublicationIdentity: record.Publication}, Table: &TableIdentity{Name: "public.outbox", OID: 5},
	}
	return kafka, source
}

type adopter func(KafkaFacts, SourceFacts) (*Adoption, *Problem)

func adopters() map[string]adopter {
	return map[string]adopter{
		"stream": AdoptStream, "partitions": AdoptPartitions, "kafka": AdoptKafka, "slot": AdoptSlot, "divergence": AdoptDivergence,
		"topic": func(k KafkaFacts, s SourceFacts) (*Adoption, *Problem) { return AdoptTopic(k, s, "t") },
	}
}

// Each adoption ends its own finding, and afterwards the relay streams; every
// other one refuses, and names the finding that there is.
func TestAdopt(t *testing.T) {
	type world struct {
		kafka  *KafkaFacts
		source *SourceFacts
	}
	for _, test := range []struct {
		name   string
		by     string
		change func(w world)
		reason HaltReason
		left   HaltReason
		check  func(a *Adoption) bool
	}{
		{"publication altered", "stream", func(w world) { w.source.Publication.XMin = 9 }, HaltStreamChanged, "",
			func(a *Adoption) bool {
				return a.Record.Publication.XMin == 9 && a.Record.Generation == 3 && a.Record.LastRow.Serial == 2
			}},
		{"table made again", "stream", func(w world) { w.source.Table.OID = 6 }, HaltStreamChanged, "", func(a *Adoption) bool { return a.Record.Table.OID == 6 }},
		{"topic made again", "topic", func(w world) { w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 2}} }, HaltTopicRecreated, "",
			func(a *Adoption) bool {
				return a.Pins[0] == TopicPin{"t", "9", 2} && a.Pins[1].ID == "2" && a.Record.Generation == 3
			}},
		{"two topics made again", "topic", func(w world) {
			w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 3}}
			w.kafka.Topics["u"] = TopicFacts{TopicPin: TopicPin{"u", "9", 4}}
		}, HaltTopicRecreated, HaltTopicRecreated, nil},
		{"topic made again and publication altered", "topic", func(w world) {
			w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 3}}
			w.source.Publication.XMin = 9
		}, HaltTopicRecreated, HaltStreamChanged, func(a *Adoption) bool { return a.Record.Publication.XMin == 2 }},
		{"topic grown", "partitions", func(w world) { w.kafka.Topics["u"] = TopicFacts{TopicPin: TopicPin{"u", "2", 8}} }, "", "",
			func(a *Adoption) bool { return a.Pins[0].Partitions == 3 && a.Pins[1].Partitions == 8 }},
		{"other cluster", "kafka", func(w world) {
			w.kafka.ClusterID = "d"
			w.kafka.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 6}}
			delete(w.kafka.Topics, "u")
		}, HaltOtherKafka, "", func(a *Adoption) bool {
			return a.Record.KafkaClusterID == "d" && len(a.Pins) == 1 && a.Pins[0] == TopicPin{"t", "9", 3} &&
				a.Doubtful(Position{Generation: 3, CommitLSN: 0x300, Serial: 3}) && !a.Doubtful(Position{Generation: 3, CommitLSN: 0x300, Serial: 2})
		}},
		{"slot advanced", "slot", func(w world) { w.source.Slot.ConfirmedFlush = 0x600 }, HaltSlotMoved, "",
			func(a *Adoption) bool {
				return a.Record.RecordedLSN == 0x600 && a.Record.Generation == 3 && a.Record.Position().Serial == 0 && a.Doubtful == nil
			}},
		{"was at-least-once", "slot", func(w world) { w.kafka.Record.Mode = AtLeastOnce }, HaltModeChanged, "",
			func(a *Adoption) bool {
				return a.Record.RecordedLSN == 0x400 && a.Record.Generation == 4 && a.Record.Mode == ExactlyOnce && a.Doubtful(Position{Generation: 3, CommitLSN: 0x400, Serial: 1})
			}},
		{"no record", "slot", func(w world) { w.kafka.Record, w.kafka.Pins = nil, nil }, HaltPositionMissing, "",
			func(a *Adoption) bool {
				return a.Record.Generation == 2 && a.Record.SystemID == "7" && a.Record.Table.OID == 5
			}},
		{"failover that lost the last row", "divergence", func(w world) {
			w.source.Timeline, w.source.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x250}, {Timeline: 2}}
			w.source.Slot.ConfirmedFlush = 0x200
		}, HaltDiverged, "", func(a *Adoption) bool {
			return a.Record.Generation == 4 && a.Record.RecordedLSN == 0x250 && a.Record.Position() == Position{Generation: 4, Timeline: 2, CommitLSN: 0x250} &&
				a.Doubtful(Position{Generation: 3, CommitLSN: 0x250, Serial: 1}) && !a.Doubtful(Position{Generation: 3, CommitLSN: 0x24f, Serial: 1}) && !a.Doubtful(Position{Generation: 2, CommitLSN: 0x300, Serial: 1})
		}},
		{"failover that cut the last commit", "divergence", func(w world) {
			w.source.Timeline, w.source.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x320}, {Timeline: 2}}
			w.source.Slot.ConfirmedFlush = 0x200
		}, HaltDiverged, "", func(a *Adoption) bool { return a.Doubtful(Position{Generation: 3, CommitLSN: 0x300, Serial: 1}) }},
		{"failover whose slot was made behind the switch", "divergence", func(w world) {
			w.source.Timeline, w.source.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x250}, {Timeline: 2}}
		}, HaltDiverged, HaltSlotMoved, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for by, adopt := range adopters() {
				kafka, source := adoptable()
				test.change(world{&kafka, &source})
				before := PositionRecord{}
				if kafka.Record != nil {
					before = *kafka.Record
				}
				adoption, problem := adopt(kafka, source)
				if kafka.Record != nil && before.RecordedLSN != kafka.Record.RecordedLSN {
					t.Errorf("%s changed the record that it was given", by)
				}
				if by != test.by {
					if test.reason != "" && (problem == nil || problem.Reason != test.reason || problem.Fix == "") {
						t.Errorf("%s: got %v, want the finding %s", by, problem, test.reason)
					}
					continue
				}
				if problem != nil || adoption.Finding == nil || adoption.Finding.Reason != test.reason || len(adoption.Does) == 0 {
					t.Fatalf("got %+v, %v", adoption, problem)
				}
				if left := reasonOf(adoption.Left); left != test.left {
					t.Errorf("left is %q, want %q", left, test.left)
				}
				if test.check != nil && !test.check(adoption) {
					t.Errorf("got %+v", adoption)
				}
			}
		})
	}
}

func reasonOf(problem *Problem) HaltReason {
	if problem == nil {
		return ""
	}
	return problem.Reason
}

// A command that was killed behind its transaction finds nothing to do.
func TestAdoptTwice(t *testing.T) {
	for by, adopt := range adopters() {
		kafka, source := adoptable()
		if adoption, problem := adopt(kafka, source); problem != nil || adoption.Finding != nil || adoption.Record.RecordedLSN != 0x500 {
			t.Errorf("%s of a relay that streams: %+v, %v", by, adoption, problem)
		}
	}
	kafka, source := adoptable()
	if _, problem := AdoptTopic(kafka, source, "nobody"); problem == nil || !strings.Contains(problem.What, `"nobody"`) {
		t.Errorf("a topic that was never used: %v", problem)
	}
	kafka.Record.State = RecordInitialising
	if _, problem := AdoptSlot(kafka, source); reasonOf(problem) != HaltPositionMissing {
		t.Errorf("an unfinished init: %v", problem)
	}
	kafka, source = adoptable()
	source.Publication, source.Table = nil, nil
	if _, problem := AdoptStream(kafka, source); reasonOf(problem) != HaltStreamChanged {
		t.Errorf("no publication: %v", problem)
	}
	kafka, source = adoptable()
	kafka.Record.Lineage = Lineage{{Timeline: 1, Switch: 0x200}, {Timeline: 2}}
	if _, problem := AdoptDivergence(kafka, source); reasonOf(problem) != HaltDiverged || problem.Fix != FixResync {
		t.Errorf("a timeline that the server never had: %v", problem)
	}
}
