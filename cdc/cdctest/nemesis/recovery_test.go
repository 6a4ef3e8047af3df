package nemesis

import (
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	r := newRecoveries()
	r.counts["kill"], r.counts["cut"] = 4, 1
	for _, ms := range []int{300, 100, 200} {
		r.measured("kill", time.Duration(ms)*time.Millisecond)
	}
	if got := r.fewest([]string{"kill", "cut"}); got != 1 {
		t.Errorf("the rarest kind came %d times", got)
	}
	if got := r.fewest([]string{"kill", "slow"}); got != 0 {
		t.Errorf("a kind that never came came %d times", got)
	}
	want := "fault  count  measured  p50    max\n" +
		"kill   4      3         200ms  300ms\n" +
		"cut    1      0         -      -\n"
	if got := r.table([]string{"kill", "cut"}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
