package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// smallOptions measure everything once, small: the figures mean nothing, but
// the rows have to arrive. The broker is a fake one, and beside Debezium, where
// an Apache Kafka is there to run Debezium with, a real one.
func smallOptions() options {
	opts := options{
		measure: []string{measureDrain, measureLatency, measureIdle, measureGrowth},
		rows:    1000, runs: 1, latency: time.Second, warmUp: 100 * time.Millisecond, brokerUp: time.Second, idle: time.Second, rates: []int{0}, output: "text",
		ways: []way{{socket: true}, {tls: true}}, codecs: []string{"none", "lz4"}, delivery: []string{"exactly-once"},
		growth:   growthOptions{rows: 500, backlogs: []int{500}, topics: []int{3}, partitions: []int{1}, sizes: []int{5000}},
		newKafka: cdctest.NewKfakeServer,
	}
	if os.Getenv(cdctest.BrokersVariable) != "" {
		opts.debezium, opts.debeziumWarmUp, opts.newKafka = true, time.Second, apacheKafka
	}
	return opts
}

func TestMeasure(t *testing.T) {
	opts := smallOptions()
	opts.rates = []int{0, 100}
	results, err := measure(t.Context(), opts, &progress{})
	if err != nil {
		t.Fatal(err)
	}
	var table, encoded strings.Builder
	if err := errors.Join(results.print(&table, "text"), results.print(&encoded, "json")); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
	relays, debezium := 5, 0
	if opts.debezium {
		debezium = len(tunings())
	}
	if got, want := len(results.Drains), 2*(3+relays+debezium); got != want {
		t.Errorf("%d drains, want %d", got, want)
	}
	for _, l := range results.Latencies {
		if l.Samples < fewestSamples {
			t.Errorf("latency of only %d samples: %+v", l.Samples, l)
		}
	}
	if got, want := len(results.Latencies), 2*(1+debezium)+1; got != want {
		t.Errorf("%d latencies, want %d", got, want)
	}
	if got, want := len(results.Idle), 1+debezium; got != want {
		t.Errorf("%d idle readers, want %d", got, want)
	}
	if got, want := len(results.Growth), len(opts.growth.points()); got != want {
		t.Errorf("%d points of growth, want %d", got, want)
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(encoded.String()), &back); err != nil || back["drains"] == nil || back["summaries"] == nil {
		t.Errorf("the JSON is %v: %v", back, err)
	}
	checkXML(t, plotGrowth(results.Growth))
}

func TestMeasureAtLeastOnce(t *testing.T) {
	opts := smallOptions()
	opts.measure, opts.delivery, opts.debezium = []string{measureDrain}, []string{"at-least-once"}, false
	results, err := measure(t.Context(), opts, &progress{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(results.Drains), 2*len(opts.readers(nil)); got != want {
		t.Errorf("%d drains, want %d", got, want)
	}
}

func checkXML(t *testing.T, text []byte) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(string(text)))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v\n%s", err, text)
		}
	}
}

func TestParse(t *testing.T) {
	opts, err := parse([]string{"-rates", "10,max", "-compression", "none,zstd", "-growth-topics", "1,7"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if opts.rates[0] != 10 || opts.rates[1] != 0 || opts.codecs[1] != "zstd" || opts.growth.topics[1] != 7 {
		t.Errorf("got %+v", opts)
	}
	if readers := opts.readers(nil); len(readers) != 4 || readers[3].name != "relay, zstd" || len(steady(readers)) != 1 {
		t.Errorf("readers are %+v", readers)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-rows", "0"}, {"-runs", "0"}, {"-latency", "1ms"}, {"-idle", "0s"}, {"-o", "xml"}, {"-measure", "speed"}, {"-rates", "fast"},
		{"-growth-topics", "1001"}, {"-growth-sizes", "10"}, {"-warm-up", "-1s"}, {"-broker-warm-up", "-1s"}, {"more"}, {"-nothing"}, {"-link", "far"}, {"-link", "1ms,2s"},
	} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

func TestSummaries(t *testing.T) {
	results := results{
		Drains: []drain{
			{Backlog: "b", Reader: relayName, Run: 1, RowsPerSecond: 100, ReaderCPU: 2},
			{Backlog: "b", Reader: "other", Run: 1, RowsPerSecond: 50, ReaderCPU: 8},
			{Backlog: "b", Reader: relayName, Run: 2, RowsPerSecond: 300, ReaderCPU: 2},
			{Backlog: "b", Reader: "other", Run: 2, RowsPerSecond: 100, ReaderCPU: 4},
		},
		Growth: []growth{
			{Factor: factorTopics, Value: 1, Work: 1}, {Factor: factorTopics, Value: 10, Work: 10},
			{Factor: factorTopics, Value: 1, Work: 1}, {Factor: factorTopics, Value: 10, Work: 10}, {Factor: factorPayload, Value: 10, Work: 5},
		},
	}
	s := results.summarize()
	if got, want := s.Drains[0].RowsPerSecond, (spread{200, 100, 300}); got != want {
		t.Errorf("rows per second %+v, want %+v", got, want)
	}
	if got, want := s.Drains[1].SpeedRatio, (spread{2.5, 2, 3}); got != want {
		t.Errorf("ratio %+v, want %+v", got, want)
	}
	if got, want := s.Drains[1].CPURatio, (spread{0.375, 0.25, 0.5}); got != want {
		t.Errorf("ratio of CPU %+v, want %+v", got, want)
	}
	if len(s.Growth) != 3 || s.Growth[0].Exponent != 0 || s.Growth[1].Exponent != 1 || s.Growth[2].Exponent != 0 {
		t.Errorf("growth %+v, want exponents 0, 1 and 0", s.Growth)
	}
}

// Each run begins with another reader, and has every one once.
func TestInTurn(t *testing.T) {
	all := []string{"a", "b", "c"}
	for run, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(inTurn(all, run), ""); got != want {
			t.Errorf("run %d: %s, want %s", run, got, want)
		}
	}
}
