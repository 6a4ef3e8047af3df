package cdc

import (
	"testing"

	"pgregory.net/rapid"
)

// floorHistory is a server with transactions that overlap, and a relay that
// decides their rows in the order of their commits.
type floorHistory struct {
	next    XID8
	open    []openTransaction
	commits []XID8 // in order; the LSN of each is its index + 1
	decided int    // of commits
	lives   int
	from    XID8 // of this life; 0: not known
	record  PositionRecord
	floors  floors
}

// openTransaction is in every snapshot until its end, also when its commit is in
// the WAL and waits for a synchronous standby.
type openTransaction struct {
	xid     XID8
	written bool
}

func (h *floorHistory) step(t *rapid.T) {
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0: // a transaction gets an id
		h.open = append(h.open, openTransaction{xid: h.next})
		h.next++
	case 1, 2: // one of those that are open ends
		if len(h.open) == 0 {
			return
		}
		i := rapid.IntRange(0, len(h.open)-1).Draw(t, "which")
		how := rapid.IntRange(0, 3).Draw(t, "how") // 0: it is rolled back
		if how > 0 && !h.open[i].written {
			h.commits = append(h.commits, h.open[i].xid)
			h.open[i].written = true
		}
		if how < 3 || h.open[i].written && rapid.Bool().Draw(t, "standby confirms") {
			h.open = append(h.open[:i], h.open[i+1:]...)
		}
	case 3: // the guard looks
		if h.from == 0 && rapid.Bool().Draw(t, "an id can be had") {
			h.from = h.next
			h.next++
		}
		oldest := h.next
		for _, transaction := range h.open {
			oldest = min(oldest, transaction.xid)
		}
		h.floors.note(FloorLook{XID: oldest, LSN: LSN(len(h.commits) + 1), From: h.from})
	case 4, 5: // a record is committed
		h.decided = rapid.IntRange(h.decided, len(h.commits)).Draw(t, "decided")
		if h.decided > 0 {
			h.record.LastRow = &LastRow{CommitLSN: LSN(h.decided), Serial: 1}
		}
		h.record.PublishedFloor = h.floors.proved(h.record.PublishedFloor, h.record.LastRow)
	case 6: // the relay starts again, perhaps after an adoption that passed rows over
		h.floors, h.from = floors{}, 0
		if rapid.IntRange(0, 3).Draw(t, "adoption") == 0 {
			h.record.PublishedFloor = nil
			h.lives = max(h.lives, len(h.commits)) // all of them may be missing
			h.decided = len(h.commits)
		}
	}
}

// Whatever happens in whatever order, a row is decided that a floor covers.
func TestFloorIsNeverAhead(t *testing.T) {
	reached := 0
	rapid.Check(t, func(t *rapid.T) {
		h := floorHistory{next: 700}
		for range rapid.IntRange(10, 80).Draw(t, "steps") {
			before := h.record.PublishedFloor
			h.step(t)
			floor := h.record.PublishedFloor
			if floor == nil {
				continue
			}
			if before != nil && before != floor && (floor.XID <= before.XID || floor.From != before.From) {
				t.Fatalf("floor %+v follows %+v", *floor, *before)
			}
			reached++
			for i, xid := range h.commits {
				missing := i >= h.decided || i < h.lives
				if missing && xid >= floor.From && xid < floor.XID {
					t.Fatalf("floor %+v covers %d, commit number %d of which %d are decided and the first %d may be missing", *floor, xid, i, h.decided, h.lives)
				}
			}
		}
	})
	if reached == 0 {
		t.Error("no floor was ever proved: nothing was tested")
	}
}

// A relay that lags behind every newest look still gets on.
func TestFloorFollowsALaggingRelay(t *testing.T) {
	var f floors
	var floor *PublishedFloor
	for lsn := LSN(1); lsn <= 100; lsn++ {
		f.note(FloorLook{XID: XID8(1000 + lsn), LSN: lsn + 10, From: 700})
		floor = f.proved(floor, &LastRow{CommitLSN: lsn, Serial: 1})
	}
	if floor == nil || floor.From != 700 || floor.XID < 1080 {
		t.Fatalf("at LSN 100 the floor is %+v", floor)
	}
	if next := f.proved(floor, &LastRow{CommitLSN: 200}); next != floor {
		t.Errorf("a record without a row has the floor %+v", next)
	}
	f.note(FloorLook{XID: 900, LSN: 101, From: 700})
	if next := f.proved(floor, &LastRow{CommitLSN: 300, Serial: 1}); next.XID < floor.XID {
		t.Errorf("the floor fell to %+v", next)
	}
}

func TestStandingFloor(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*KafkaFacts, *SourceFacts)
		stands bool
	}{
		{"nothing happened", func(*KafkaFacts, *SourceFacts) {}, true},
		{"the slot was lost", func(_ *KafkaFacts, s *SourceFacts) { s.Slot = nil }, true},
		{"facts without a history, on the recorded timeline", func(_ *KafkaFacts, s *SourceFacts) { s.Lineage = nil }, true},
		{"facts without a history, on another timeline", func(_ *KafkaFacts, s *SourceFacts) { s.Lineage, s.Timeline = nil, 2 }, false},
		{"a failover that kept the last row", func(_ *KafkaFacts, s *SourceFacts) {
			s.Timeline, s.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x350}, {Timeline: 2}}
		}, true},
		{"a failover that lost the last row", func(_ *KafkaFacts, s *SourceFacts) {
			s.Timeline, s.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x250}, {Timeline: 2}}
		}, false},
		{"another database", func(_ *KafkaFacts, s *SourceFacts) { s.SystemID = "8" }, false},
		{"another cluster", func(k *KafkaFacts, _ *SourceFacts) { k.ClusterID = "d" }, false},
		{"a topic was made again", func(k *KafkaFacts, _ *SourceFacts) { k.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 3}} }, false},
		{"a topic is gone", func(k *KafkaFacts, _ *SourceFacts) { delete(k.Topics, "t") }, false},
		{"a topic has no id", func(k *KafkaFacts, _ *SourceFacts) {
			k.Pins[0].ID = ""
			k.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "", 3}}
		}, false},
		{"no record", func(k *KafkaFacts, _ *SourceFacts) { k.Record = nil }, false},
		{"no row since the last resync", func(k *KafkaFacts, _ *SourceFacts) { k.Record.LastRow = &LastRow{CommitLSN: 0x300} }, false},
		{"a floor behind the last row", func(k *KafkaFacts, _ *SourceFacts) { k.Record.PublishedFloor.LSN = 0x301 }, false},
	} {
		kafka, source := adoptable()
		kafka.Record.PublishedFloor = &PublishedFloor{From: 5, XID: 7, LSN: 0x300}
		test.change(&kafka, &source)
		begun, _ := BeginResync(kafka, source, 0)
		if got := begun.StandingFloor(source) != nil; got != test.stands {
			t.Errorf("%s: a resync relies on the floor: %t, want %t", test.name, got, test.stands)
		}
		// The attempt after one that died knows no more than its record.
		kafka.Record = &begun
		if again, _ := BeginResync(kafka, source, 0); (again.StandingFloor(source) != nil) != test.stands {
			t.Errorf("%s: the second attempt decides otherwise", test.name)
		}
	}
}

// An adoption after which rows may be missing forgets the floor.
func TestAdoptionsForgetTheFloor(t *testing.T) {
	for _, test := range []struct {
		by     string
		change func(*KafkaFacts, *SourceFacts)
		keeps  bool
	}{
		{"stream", func(_ *KafkaFacts, s *SourceFacts) { s.Publication.XMin = 9 }, false},
		{"topic", func(k *KafkaFacts, _ *SourceFacts) { k.Topics["t"] = TopicFacts{TopicPin: TopicPin{"t", "9", 3}} }, false},
		{"kafka", func(k *KafkaFacts, _ *SourceFacts) { k.ClusterID = "d" }, false},
		{"slot", func(_ *KafkaFacts, s *SourceFacts) { s.Slot.ConfirmedFlush = 0x600 }, false},
		{"divergence", func(_ *KafkaFacts, s *SourceFacts) {
			s.Timeline, s.Lineage = 2, Lineage{{Timeline: 1, Switch: 0x250}, {Timeline: 2}}
			s.Slot.ConfirmedFlush = 0x200
		}, false},
		{"partitions", func(k *KafkaFacts, _ *SourceFacts) { k.Topics["u"] = TopicFacts{TopicPin: TopicPin{"u", "2", 8}} }, true},
	} {
		kafka, source := adoptable()
		kafka.Record.PublishedFloor = &PublishedFloor{From: 5, XID: 7, LSN: 0x300}
		test.change(&kafka, &source)
		adoption, problem := adopters()[test.by](kafka, source)
		if problem != nil || adoption.Finding == nil {
			t.Fatalf("%s: got %+v, %v", test.by, adoption, problem)
		}
		if got := adoption.Record.PublishedFloor != nil; got != test.keeps {
			t.Errorf("%s keeps the floor: %t, want %t", test.by, got, test.keeps)
		}
	}
	kafka, source := adoptable()
	kafka.Record.PublishedFloor = &PublishedFloor{From: 5, XID: 7, LSN: 0x300}
	if ended, problem := EndResync(*kafka.Record, source, source.Slot.ConfirmedFlush); problem != nil || ended.PublishedFloor != nil {
		t.Errorf("a resync ends with %+v, %v", ended.PublishedFloor, problem)
	}
}
