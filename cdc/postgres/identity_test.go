package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestParseLineage(t *testing.T) {
	got, err := parseLineage([]byte("1\t0/9A0\tno recovery target specified\n\n# a comment\n2\t1/0\tbefore 2026-01-01 00:00:00+00\n"), 4)
	want := cdc.Lineage{{Timeline: 1, Switch: 0x9A0}, {Timeline: 2, Switch: 1 << 32}, {Timeline: 4}}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{"", "1\n", "x\t0/1\tr\n", "1\t01\tr\n", "2\t0/5\tr\n1\t0/6\tr\n", "1\t0/5\tr\n2\t0/4\tr\n", "4\t0/5\tr\n"} {
		if got, err := parseLineage([]byte(bad), 4); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}
