package main

import (
	"fmt"
	"io"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// verdict is an audit in the words of the demo, where nobody prunes, parks,
// backfills or shares the topic: what an audit elsewhere may explain by that is
// wrong here.
type verdict struct {
	Committed  int64 `json:"committed"`
	Delivered  int64 `json:"delivered"` // committed rows with a record
	OnTheWay   int64 `json:"on_the_way"`
	Missing    int64 `json:"missing"`
	Duplicate  int64 `json:"duplicate"`
	OutOfOrder int64 `json:"out_of_order"` // records of one reservation, by the commit timestamps
	Backwards  int64 `json:"backwards"`    // records of one partition, by the relay's own positions
	Phantom    int64 `json:"phantom"`      // records of what was never committed
	Wrong      int64 `json:"wrong"`        // records elsewhere, or with other content, than their row routes to

	pairs, pairsUnknown int64 // of records of one reservation: with and without a known order
	positions           int64 // records whose position was checked
	examples            []audit.Example
	keys                map[string]string // of the committed rows, by event id
}

// verdictOf translates a report; keys are those of its rows by event id.
func verdictOf(r *audit.Report, keys map[string]string) verdict {
	return verdict{
		Committed: r.Rows, Delivered: r.Found, OnTheWay: r.Pending,
		Missing:    r.Missing + r.Expired + r.Parked + r.Unroutable,
		Duplicate:  r.Duplicate,
		OutOfOrder: r.OutOfOrder,
		Backwards:  r.Order.PositionsBackwards,
		Phantom:    r.Phantom + r.Pruned + r.Foreign,
		Wrong:      r.WrongPlace + r.Changed + r.Backfilled,
		pairs:      r.Order.PairsChecked, pairsUnknown: r.Order.PairsUnknown, positions: r.Order.PositionsChecked,
		examples: r.Examples, keys: keys,
	}
}

// exact says whether nothing is wrong; rows may be on their way.
func (v *verdict) exact() bool {
	return v.Missing+v.Duplicate+v.OutOfOrder+v.Backwards+v.Phantom+v.Wrong == 0
}

// printExamples writes the first cases of each kind, which tell most.
func (v *verdict) printExamples(w io.Writer) {
	for _, e := range v.examples {
		fmt.Fprintf(w, "  %s: event %s, %s[%d]@%d %s\n", e.Kind, e.EventID, e.Topic, e.Partition, e.Offset, e.Text)
	}
}
