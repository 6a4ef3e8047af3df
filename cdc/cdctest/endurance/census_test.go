package endurance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// exactRecords are rows 1 ... n in two partitions.
func exactRecords(n int) []*kgo.Record {
	var records []*kgo.Record
	for i := 1; i <= n; i++ {
		position := cdc.Position{Generation: 1, CommitLSN: 0x16B3600, Serial: uint32(i)}
		records = append(records, &kgo.Record{
			Partition: int32(i % 2), Offset: int64(i), Key: []byte(KeyOf(i)), Value: fmt.Appendf(nil, `{"n": %d}`, i),
			Headers: []kgo.RecordHeader{{Key: positionHeader, Value: []byte(position.Header())}},
		})
	}
	return records
}

func TestCensus(t *testing.T) {
	const rows = 200
	cases := []struct {
		name  string
		spoil func([]*kgo.Record) []*kgo.Record
		want  string // empty: exact
	}{
		{"exact", func(r []*kgo.Record) []*kgo.Record { return r }, ""},
		{"the last row is missing", func(r []*kgo.Record) []*kgo.Record { return r[:rows-1] }, "199 of 200 rows came"},
		{"a row comes twice", func(r []*kgo.Record) []*kgo.Record { return append(r, r[3]) }, "row 4 comes again"},
		{"two rows of a partition change places", func(r []*kgo.Record) []*kgo.Record {
			r[4], r[6] = r[6], r[4]
			return r
		}, "row 5 at 0/16B3600:5 comes after 0/16B3600:7"},
		{"a row that nobody wrote", func(r []*kgo.Record) []*kgo.Record {
			r[0].Value = []byte(`{"n": 201}`)
			return r
		}, "row 201 of 200 was never written"},
		{"another serial than its place", func(r []*kgo.Record) []*kgo.Record {
			r[9].Value = []byte(`{"n": 11}`)
			return r
		}, "row 11 has serial 10"},
		{"another key", func(r []*kgo.Record) []*kgo.Record {
			r[9].Key = []byte("k11")
			return r
		}, `row 10 has key "k11"`},
		{"a record of another transaction", func(r []*kgo.Record) []*kgo.Record {
			r[9].Headers[0].Value = []byte(cdc.Position{Generation: 1, CommitLSN: 0x16B3700, Serial: 10}.Header())
			return r
		}, "row 10 has commit LSN 0/16B3700"},
		{"a record without a position", func(r []*kgo.Record) []*kgo.Record {
			r[9].Headers = nil
			return r
		}, "no header"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			census := NewCensus(rows)
			for _, record := range c.spoil(exactRecords(rows)) {
				census.Take(record)
			}
			err := census.Err()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}
