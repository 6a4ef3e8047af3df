package cdc

import "testing"

func TestSkip(t *testing.T) {
	at := func(commit LSN, serial uint32) Position {
		return Position{Generation: 1, Timeline: 1, CommitLSN: commit, Serial: serial}
	}
	row := func(commit LSN, serial uint32) *Row {
		return &Row{Position: at(commit, serial), XID: 9, EventID: []byte("bad")}
	}
	bad := BadRow("nowhere to go", "mend it")
	for _, test := range []struct {
		name    string
		named   Position
		waiting []*Row
		why     *Problem
		refused bool
	}{
		{"the next row", at(0x300, 1), []*Row{row(0x300, 1)}, bad, false},
		{"a row behind others of its transaction", at(0x300, 3), []*Row{row(0x300, 1), row(0x300, 2), row(0x300, 3)}, bad, false},
		{"a row behind another transaction", at(0x300, 1), []*Row{row(0x280, 1), row(0x300, 1)}, bad, true},
		{"another row", at(0x300, 1), []*Row{row(0x300, 2)}, bad, true},
		{"another generation", Position{Generation: 2, CommitLSN: 0x300, Serial: 1}, []*Row{row(0x300, 1)}, bad, true},
		{"no row", at(0x300, 1), nil, nil, true},
		{"a row that is not bad", at(0x300, 1), []*Row{row(0x300, 1)}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			record := &PositionRecord{Generation: 1, RecordedLSN: 0x240, EndLSN: 0x240, Complete: true, LastRow: &LastRow{CommitLSN: 0x200, Serial: 1}}
			decided, problem := Skip(record, test.named, test.waiting, test.why)
			if test.refused {
				if problem == nil || problem.Fix == "" {
					t.Errorf("got %+v, %v, want it refused", decided, problem)
				}
				return
			}
			if problem != nil {
				t.Fatal(problem)
			}
			if decided.Position().Compare(test.named) != 0 || decided.Complete || decided.RecordedLSN != 0x240 || decided.LastRow.EventID != "bad" || decided.LastRow.XID != 9 {
				t.Errorf("got %+v", decided)
			}
			if !record.Complete {
				t.Error("the record that it was given has changed")
			}
		})
	}
}

func TestNextRows(t *testing.T) {
	record := &PositionRecord{Generation: 1, RecordedLSN: 0x1c0, LastRow: &LastRow{CommitLSN: 0x200, Serial: 1, EventID: "a", XID: 7}, Complete: false}
	resume := Resume{RecordedLSN: 0x1c0, Through: record.Position(), Witness: record.LastRow}
	begin := func(commit LSN, xid XID) *Message { return &Message{Kind: MessageBegin, CommitLSN: commit, XID: xid} }
	insert := func(id string) *Message { return &Message{Kind: MessageInsert, Row: Row{EventID: []byte(id)}} }
	commit := func(at LSN) *Message { return &Message{Kind: MessageCommit, CommitLSN: at, EndLSN: at + 0x40} }
	idle := func(end LSN) *Message { return &Message{Kind: MessageKeepalive, WALEnd: end} }
	for _, test := range []struct {
		name     string
		messages []*Message
		rows     []string
		done     bool
		reason   HaltReason
	}{
		{"rows behind the recorded one", []*Message{idle(0x100), begin(0x200, 7), insert("a"), insert("b"), commit(0x200), begin(0x300, 8), insert("c"), commit(0x300)}, []string{"0/200:2", "0/300:1"}, false, ""},
		{"nothing waits", []*Message{begin(0x200, 7), insert("a"), commit(0x200), idle(0x300)}, nil, false, ""},
		{"nothing waits up to the end", []*Message{begin(0x200, 7), insert("a"), commit(0x200), idle(0x400)}, nil, true, ""},
		{"another event", []*Message{begin(0x200, 7), insert("x")}, nil, false, HaltDiverged},
		{"another transaction", []*Message{begin(0x200, 6), insert("a")}, nil, false, HaltDiverged},
		{"the recorded row is passed by", []*Message{begin(0x300, 8)}, nil, false, HaltDiverged},
		{"the WAL goes on without it", []*Message{idle(0x300)}, nil, false, HaltDiverged},
	} {
		t.Run(test.name, func(t *testing.T) {
			next := NewNextRows(record, resume, 1, 0x400)
			var rows []string
			var done bool
			var problem *Problem
			for _, m := range test.messages {
				var row *Row
				if row, done, problem = next.Take(m); row != nil {
					rows = append(rows, row.String())
				}
				if problem != nil {
					break
				}
			}
			if reasonOf(problem) != test.reason || done != test.done || len(rows) != len(test.rows) {
				t.Fatalf("got %v, done %t, %v", rows, done, problem)
			}
			for i := range rows {
				if rows[i] != test.rows[i] {
					t.Errorf("row %d is %s, want %s", i, rows[i], test.rows[i])
				}
			}
		})
	}
}
