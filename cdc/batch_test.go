package cdc

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBatchesOwnTheirMemory gathers rows whose memory is written over as soon as
// they were taken in, as the stream's is, and takes batches with a rest behind
// them: no batch sees what another batch, or the stream, writes.
func TestBatchesOwnTheirMemory(t *testing.T) {
	a := newAssembly(BatchLimits{MaxRows: 100, MaxBytes: 1 << 20, MaxPartitions: 10})
	lent := make([]byte, 0, 1<<17)
	headers := make([]Header, 2)
	next, want, lsn := 0, 0, LSN(100)
	text := func(n int) string {
		if n%50 == 7 {
			return fmt.Sprint(n, strings.Repeat("x", roomChunkBytes)) // stands alone
		}
		return fmt.Sprint("text ", n)
	}
	take := func() {
		lent = append(lent[:0], text(next)...)
		headers[0], headers[1] = Header{Key: "a", Value: lent}, Header{Key: "null"}
		a.append(Record{Topic: "t", Key: lent, Value: lent[:len(lent):len(lent)], Headers: headers, Placement: lent}, rowMark{eventID: lent})
		clear(lent)
		clear(headers)
		next++
	}
	check := func(batch *Batch) {
		t.Helper()
		for i := range batch.Records {
			record := &batch.Records[i]
			text := text(want)
			if string(record.Key) != text || string(record.Value) != text || len(record.Headers) != 2 || string(record.Headers[0].Value) != text || record.Headers[1].Value != nil {
				t.Fatalf("record %d has key %.20q, value %.20q, headers %.40q", want, record.Key, record.Value, record.Headers)
			}
			want++
		}
	}
	for range 30 {
		for range 60 {
			take()
		}
		a.commit(lsn)
		for range 10 {
			take()
		}
		batch, end := a.cut()
		if id := text(next - 11); string(end.last.eventID) != id || string(a.last.eventID) != text(next-1) {
			t.Fatalf("the batch ends with %.20q, the rest with %.20q", end.last.eventID, a.last.eventID)
		}
		for range 5 {
			take() // while the batch is with the publisher
		}
		check(batch)
		a.recycle()
		lsn++
	}
	if len(a.values.chunks) > 3 || len(a.other.values.chunks) > 3 {
		t.Errorf("the rooms have %d and %d chunks for 75 small rows", len(a.values.chunks), len(a.other.values.chunks))
	}
}

// TestClonesLendNothing: NULL stays NULL, and the empty text stays empty.
func TestClonesLendNothing(t *testing.T) {
	lent := []byte("abc")
	row := Row{Values: [][]byte{lent, nil, {}}, EventID: lent}
	record := Record{Key: lent, Value: lent, Placement: lent, Headers: []Header{{Key: "h", Value: lent}, {Key: "null"}}, Timestamp: time.Unix(1, 0)}
	ownRow, ownRecord := row.Clone(), record.Clone()
	copy(lent, "XYZ")
	if got := bytes.Join(ownRow.Values, []byte("|")); string(got) != "abc||" || ownRow.Values[1] != nil || ownRow.Values[2] == nil || string(ownRow.EventID) != "abc" {
		t.Errorf("row %q", ownRow.Values)
	}
	if got := fmt.Sprintf("%s %s %s %s", ownRecord.Key, ownRecord.Value, ownRecord.Placement, ownRecord.Headers[0].Value); got != "abc abc abc abc" || ownRecord.Headers[1].Value != nil {
		t.Errorf("record %s", got)
	}
}
