package kafka

import (
	"testing"
	"time"
)

// TestMarkersTime: markers that take so long, and transactions that end so far
// apart, lead to an estimate that the next question can be timed by.
func TestMarkersTime(t *testing.T) {
	const millisecond = time.Millisecond
	for _, test := range []struct {
		name        string
		take, gap   time.Duration
		from        markersTime
		least, most time.Duration // of the estimate
	}{
		{"nothing timed yet", millisecond, millisecond / 2, markersTime{}, 7 * millisecond / 8, 2 * millisecond},
		{"a slow cluster", 12 * millisecond, 3 * millisecond, markersTime{}, 9 * millisecond, 16 * millisecond},
		{"a slow cluster that became fast", millisecond, millisecond / 2, markersTime{took: 20 * millisecond}, 7 * millisecond / 8, 2 * millisecond},
		{"transactions far apart say nothing of their markers", millisecond, 25 * millisecond, markersTime{took: 20 * millisecond}, 0, 7 * millisecond},
		{"transactions at medium distance", millisecond, 10 * millisecond, markersTime{took: 12 * millisecond}, 0, 3 * millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.from
			for range 100 {
				since := test.gap // when the question could be asked
				if m.past(since) {
					continue
				}
				since = max(since, m.askAt(time.Time{}).Sub(time.Time{}))
				first := since >= test.take
				for since < test.take {
					since += askMarkersEvery
				}
				m.asked(since, first)
			}
			if got := m.estimate(); got < test.least || got > test.most {
				t.Errorf("estimate %s, want %s to %s", got, test.least, test.most)
			}
		})
	}
}
