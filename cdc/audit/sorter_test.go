package audit

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// However little fits in memory, what comes out is what went in, sorted.
func TestSorter(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const size = 3
		in := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), size, size), 0, 300).Draw(t, "entries")
		s := newSorter(size, rapid.IntRange(1, 40).Draw(t, "memory"), dir)
		defer s.close()
		for _, entry := range in {
			if err := s.add(entry); err != nil {
				t.Fatal(err)
			}
		}
		sorted, err := s.sorted()
		if err != nil {
			t.Fatal(err)
		}
		var out [][]byte
		for {
			entry, err := sorted.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, bytes.Clone(entry))
		}
		slices.SortFunc(in, bytes.Compare)
		if !slices.EqualFunc(in, out, bytes.Equal) {
			t.Fatalf("got %v, want %v", out, in)
		}
	})
}

func TestEntriesSurviveEncoding(t *testing.T) {
	e := entry{id: testID(3), kind: kindRecord, topic: 7, partition: 11, offset: 1 << 40, flags: flagBackfilled, key: 5, content: 6, commit: 1 << 50, xid: 9, command: 8}
	if got := decodeEntry(e.encode()); got != e {
		t.Errorf("got %+v, want %+v", got, e)
	}
	o := orderEntry{key: 5, topic: 7, partition: 11, offset: 1 << 40, commit: 1 << 50, xid: 9, command: 8, id: testID(3)}
	if got := decodeOrderEntry(o.encode()); got != o {
		t.Errorf("got %+v, want %+v", got, o)
	}
	if len(e.encode()) != entryBytes || len(o.encode()) != orderBytes {
		t.Error("the sizes are wrong")
	}
}

func TestIDs(t *testing.T) {
	text := "0195d3f0-1234-7abc-8def-0123456789ab"
	id, err := ParseID([]byte(text))
	if err != nil || id.String() != text {
		t.Errorf("got %s, %v", id, err)
	}
	for _, wrong := range []string{"", "17", text + "0", "0195d3f0x1234-7abc-8def-0123456789ab", "0195d3f0-1234-7abc-8def-0123456789ag"} {
		if _, err := ParseID([]byte(wrong)); err == nil {
			t.Errorf("%q was taken for a UUID", wrong)
		}
	}
	if at := testID(4).Time(); !at.Equal(epoch.Add(4e9)) || IDAt(at).Compare(testID(4)) > 0 || IDAt(at.Add(1e6)).Compare(testID(4)) <= 0 {
		t.Errorf("testID(4) was made at %s", at)
	}
	if !(ID{6: 0x40}).Time().IsZero() {
		t.Error("an id that is no UUIDv7 has a time")
	}
}
