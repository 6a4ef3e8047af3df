package postgres

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// nextFloor receives until the stream hands over what the guard has seen.
func nextFloor(t *testing.T, s *stream, wanted func(cdc.FloorLook) bool) cdc.FloorLook {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		m, err := s.Receive(time.Now().Add(50 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if m == nil { // asked for, so that a keepalive comes
			if err := s.Status(0, true); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if m.Floor != nil && wanted(*m.Floor) {
			return *m.Floor
		}
	}
	t.Fatal("no such look came")
	return cdc.FloorLook{}
}

func TestGuardTellsTheFloor(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	s := f.attach(t)
	facts, err := s.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := nextFloor(t, s, func(look cdc.FloorLook) bool { return look.From > 0 })
	open := f.server.Connect(t, f.database)
	tx, err := open.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var held cdc.XID8
	if err := tx.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::int8").Scan(&held); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `INSERT INTO outbox (payload) VALUES ('a')`)
	var end string
	if err := f.sql.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	lsn = facts.WALPages.EndOfData(lsn) // as the look's
	behind := func(look cdc.FloorLook) bool { return look.LSN >= lsn }
	if look := nextFloor(t, s, behind); look.XID > held || look.From != first.From || first.From >= held {
		t.Errorf("while %d is open the guard tells %+v, at first %+v", held, look, first)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	nextFloor(t, s, func(look cdc.FloorLook) bool { return look.XID > held })
}

// The rows that a floor covers are left out, and no other, when its witness is
// there.
func TestScanLeavesOutWhatTheFloorCovers(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	insert := func(n int) cdc.XID8 {
		t.Helper()
		var xid cdc.XID8
		err := f.sql.QueryRow(t.Context(), fmt.Sprintf("INSERT INTO outbox (id, payload) VALUES ('%s', 'x') RETURNING pg_current_xact_id()::text::int8", uuidOf(n))).Scan(&xid)
		if err != nil {
			t.Fatal(err)
		}
		return xid
	}
	xids := []cdc.XID8{insert(0), insert(1), insert(2), insert(3)}
	// A row of a subtransaction, and one that was frozen.
	f.exec(t, fmt.Sprintf(`BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s; INSERT INTO outbox (id, payload) VALUES ('%s', 'x'); COMMIT`, uuidOf(4)))
	f.exec(t, `VACUUM FREEZE outbox`)
	last := insert(5)
	witness := &cdc.LastRow{EventID: uuidOf(3), XID: cdc.XID(xids[3])}
	floor := cdc.PublishedFloor{From: xids[1], XID: xids[3]}
	for _, test := range []struct {
		name    string
		floor   cdc.PublishedFloor
		witness cdc.LastRow
		proves  bool
		left    []int // of the rows; nil: all
	}{
		{name: "the floor", floor: floor, witness: *witness, proves: true, left: []int{0, 3, 4, 5}},
		{name: "a floor from the beginning", floor: cdc.PublishedFloor{XID: last}, witness: *witness, proves: true, left: []int{5}},
		{name: "a floor above all", floor: cdc.PublishedFloor{XID: last + 1}, witness: *witness, proves: true, left: []int{}},
		{name: "no such row", floor: floor, witness: cdc.LastRow{EventID: uuidOf(9), XID: witness.XID}},
		{name: "a row of another transaction", floor: floor, witness: cdc.LastRow{EventID: uuidOf(3), XID: witness.XID + 1}},
		{name: "a row of a subtransaction", floor: floor, witness: cdc.LastRow{EventID: uuidOf(4), XID: cdc.XID(xids[3] + 1)}},
		{name: "an id that is no UUID", floor: floor, witness: cdc.LastRow{EventID: "x' OR true", XID: witness.XID}},
		{name: "a floor that begins where rows have no bits of their own", floor: cdc.PublishedFloor{From: 1 << 32, XID: 1<<32 + 5}, witness: *witness},
	} {
		s := f.scan(t)
		proves, err := s.LeaveOut(t.Context(), &test.floor, &test.witness)
		if err != nil || proves != test.proves {
			t.Errorf("%s: proves %t, %v", test.name, proves, err)
			continue
		}
		want := []string{}
		for n := range 6 {
			if test.left == nil || slices.Contains(test.left, n) {
				want = append(want, uuidOf(n))
			}
		}
		got, _ := scanned(t, s, audit.Range{})
		lowest, err := s.LowestID(t.Context())
		if !slices.Equal(append([]string{}, got...), want) || err != nil {
			t.Errorf("%s: %q are read, want %q; %v", test.name, got, want, err)
		}
		if first := append(want, audit.ID{}.String())[0]; lowest.String() != first {
			t.Errorf("%s: the lowest id is %s, want %s", test.name, lowest, first)
		}
	}
}

// No row is left out that may be of a transaction outside of the floor, however
// often ids have wrapped since.
func TestUncoveredIsSound(t *testing.T) {
	f := ready(t, cdctest.SharedPostgres(t))
	const all = uint64(1) << 32
	leftOut := 0
	rapid.Check(t, func(rt *rapid.T) {
		near := func(label string, marks ...uint64) uint64 {
			mark := rapid.SampledFrom(marks).Draw(rt, label+" near")
			return max(3, mark+4-rapid.Uint64Range(0, 8).Draw(rt, label))
		}
		next := near("next", 20, all, all+10, 2*all, 3*all+50)
		xid := min(next, near("floor", next, next-min(next, 10), max(next, all)-all, 15))
		from := min(xid, near("from", 4, xid, max(xid, 5)-5, max(xid, all)-all))
		if rapid.Bool().Draw(rt, "from the beginning") {
			from = 0
		}
		condition := uncovered(&cdc.PublishedFloor{From: cdc.XID8(from), XID: cdc.XID8(xid)}, cdc.XID8(next))
		if condition == "" {
			return
		}
		row := min(next-1, near("row", from+4, xid, next, next-min(next, all), 4))
		var read bool
		if err := f.sql.QueryRow(t.Context(), fmt.Sprintf("SELECT %s FROM (SELECT %d::int8 AS xmin) AS row", condition, row%all), pgx.QueryExecModeSimpleProtocol).Scan(&read); err != nil {
			rt.Fatal(err)
		}
		if covered := row >= from && row < xid; !read && !covered {
			rt.Fatalf("a row of %d is left out by the floor from %d to %d, next %d: %s", row, from, xid, next, condition)
		}
		if !read {
			leftOut++
		}
	})
	if leftOut == 0 {
		t.Error("nothing was ever left out: nothing was tested")
	}
}
