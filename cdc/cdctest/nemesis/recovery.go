package nemesis

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// recoveries are the measured times by kind of fault.
type recoveries struct {
	counts map[string]int // faults, measured or not
	times  map[string][]time.Duration
}

func newRecoveries() *recoveries {
	return &recoveries{counts: map[string]int{}, times: map[string][]time.Duration{}}
}

func (r *recoveries) measured(kind string, d time.Duration) { r.times[kind] = append(r.times[kind], d) }

// fewest is how often the rarest kind came.
func (r *recoveries) fewest(kinds []string) int {
	fewest := r.counts[kinds[0]]
	for _, kind := range kinds {
		fewest = min(fewest, r.counts[kind])
	}
	return fewest
}

// table shows the kinds in the given order.
func (r *recoveries) table(kinds []string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tcount\tmeasured\tp50\tmax")
	for _, kind := range kinds {
		times := slices.Sorted(slices.Values(r.times[kind]))
		p50, most := "-", "-"
		if len(times) > 0 {
			p50, most = shown(times[len(times)/2]), shown(times[len(times)-1])
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", kind, r.counts[kind], len(times), p50, most)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

func shown(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }
