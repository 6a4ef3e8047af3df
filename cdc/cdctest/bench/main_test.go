package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// TestMeasure runs everything once, small and on a fake broker: the figures
// mean nothing, but the rows have to arrive.
func TestMeasure(t *testing.T) {
	opts := options{
		rows: 2000, runs: 1, latency: time.Second, output: "text", warmUp: 100 * time.Millisecond, rates: []int{100},
		newKafka: cdctest.NewKfakeServer,
	}
	results, err := measure(t.Context(), opts, &progress{})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := results.print(&table, "text"); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
	if len(results.Drains) != 4 || len(results.Latencies) != 1 || results.Latencies[0].Samples < 50 {
		t.Errorf("%d drains, latencies %+v; want 4 and one of at least 50 samples", len(results.Drains), results.Latencies)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{{"-rows", "0"}, {"-runs", "0"}, {"-latency", "1ms"}, {"-o", "xml"}, {"more"}, {"-nothing"}} {
		if _, err := parse(args, new(strings.Builder)); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
