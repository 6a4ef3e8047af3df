package cdc

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLSNText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		back, err := ParseLSN(l.String())
		if err != nil || back != l {
			t.Fatalf("%d prints as %s, reads as %d, %v", l, l, back, err)
		}
	})
	if got := LSN(0x16_B374D848).String(); got != "16/B374D848" {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"", "16", "16/", "/1", "16/123456789", "g/1", "1/g", "-1/1"} {
		if l, err := ParseLSN(bad); err == nil {
			t.Errorf("%q reads as %s", bad, l)
		}
	}
}

func TestEndOfData(t *testing.T) {
	w := WALPages{BlockBytes: 8192, SegmentBytes: 16 << 20}
	for lsn, want := range map[LSN]LSN{
		0x1C2E018: 0x1C2E000, // right behind the header of a page
		0x1C2E017: 0x1C2E017,
		0x1C2E019: 0x1C2E019,
		0x1C2E028: 0x1C2E028, // a page within a segment has the short header
		0x2000028: 0x2000000, // the first page of a segment has the long one
		0x2000018: 0x2000018,
		0x1C2E000: 0x1C2E000,
	} {
		if got := w.EndOfData(lsn); got != want {
			t.Errorf("%s: got %s, want %s", lsn, got, want)
		}
	}
	if got := (WALPages{}).EndOfData(0x1C2E018); got != 0x1C2E018 {
		t.Errorf("unknown geometry: got %s", got)
	}
}

// Headers compare as text in the order of their positions.
func TestPositionHeaderOrder(t *testing.T) {
	position := rapid.Custom(func(t *rapid.T) Position {
		return Position{
			Generation: rapid.Uint16().Draw(t, "generation"),
			CommitLSN:  LSN(rapid.Uint64().Draw(t, "commit")), Serial: rapid.Uint32().Draw(t, "serial"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := position.Draw(t, "a"), position.Draw(t, "b")
		text := 0
		if a.Header() < b.Header() {
			text = -1
		} else if a.Header() > b.Header() {
			text = 1
		}
		if text != a.Compare(b) {
			t.Fatalf("%s and %s: text %d, positions %d", a.Header(), b.Header(), text, a.Compare(b))
		}
		back, err := ParsePositionHeader(a.Header())
		if err != nil || back != a {
			t.Fatalf("%s reads as %+v, %v", a.Header(), back, err)
		}
	})
}

// Values from Kafka's own tests of its partitioner (UtilsTest.testMurmur2).
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPositionRecordJSON(t *testing.T) {
	record := PositionRecord{
		Version: 1, State: RecordRunning, Mode: ExactlyOnce, Generation: 1, SystemID: "7301",
		Lineage: Lineage{{Timeline: 1, Switch: 0x9A0}, {Timeline: 2}}, RecordedLSN: 0x16B3748,
		LastRow:  &LastRow{CommitLSN: 0x16B3600, Serial: 3, EventID: "e", XID: 812, CommitTime: time.Unix(1, 0).UTC()},
		Complete: true, EndLSN: 0x16B3748, At: time.Unix(2, 0).UTC(),
	}
	value, err := record.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(value, &fields); err != nil || fields["recorded_lsn"] != "0/16B3748" {
		t.Errorf("%s: %v, LSN not as Postgres prints it", value, err)
	}
	back, err := UnmarshalPositionRecord(value)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(record, *back); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{}`, `{"version":2}`, `{"version":1,"recorded_lsn":"x"}`, `[]`} {
		if _, err := UnmarshalPositionRecord([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
