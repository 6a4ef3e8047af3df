package routing

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTimePrinterPrintsRFC3339Nano(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p timePrinter
		at := time.Unix(rapid.Int64Range(-62135596800, 253402300798).Draw(t, "second"), 0)
		if rapid.Bool().Draw(t, "elsewhere") {
			at = at.In(time.FixedZone("", 3600))
		}
		steps := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(-2e9, 2e9), rapid.Map(rapid.Int64Range(-2e3, 2e3), func(n int64) int64 { return n * 1e6 })), 1, 20)
		for _, step := range steps.Draw(t, "nanoseconds") {
			if next := at.Add(time.Duration(step)); next.UTC().Year() >= 1 && next.UTC().Year() <= 9999 {
				at = next
			}
			if got, want := string(p.append([]byte("x"), at)), "x"+at.UTC().Format(time.RFC3339Nano); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}
