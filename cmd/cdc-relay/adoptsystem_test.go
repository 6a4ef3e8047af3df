package main

import (
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// A slot that was made beforehand is kept only if Kafka misses what it sends,
// and nothing else.
func TestSlotRowsExplain(t *testing.T) {
	t.Parallel()
	const looked = cdc.LSN(100)
	a, b, c := audit.ID{1}, audit.ID{2}, audit.ID{3}
	for name, test := range map[string]struct {
		sends   slotRows
		missing []audit.ID
		want    bool
	}{
		"nothing happened":                               {nil, nil, true},
		"the writers have begun":                         {slotRows{a: 50, b: 60}, []audit.ID{b, a}, true},
		"committed behind the snapshot":                  {slotRows{a: 50, b: 100}, []audit.ID{a}, true},
		"committed behind the look, in the snapshot yet": {slotRows{a: 100}, []audit.ID{a}, true},
		"committed before the slot":                      {slotRows{a: 50}, []audit.ID{a, b}, false},
		"nothing comes, one is missing":                  {nil, []audit.ID{a}, false},
		"it would come twice":                            {slotRows{a: 50}, nil, false},
		"one would come twice":                           {slotRows{a: 50, b: 60}, []audit.ID{b}, false},
		"one twice in the table, one would come twice":   {slotRows{a: 50, b: 60}, []audit.ID{b, b}, false},
		"one lost, one would come twice":                 {slotRows{a: 50}, []audit.ID{c}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			missing := make([]missingRow, 0, len(test.missing))
			for _, id := range test.missing {
				missing = append(missing, missingRow{id: id})
			}
			if got := test.sends.explain(missing, looked); got != test.want {
				t.Errorf("explain = %t, want %t", got, test.want)
			}
		})
	}
}
