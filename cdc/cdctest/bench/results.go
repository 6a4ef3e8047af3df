package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// environment is what the figures were made on.
type environment struct {
	CPUs          int    `json:"cpus"`
	OS            string `json:"os"`
	Go            string `json:"go"`
	PostgresMajor int    `json:"postgres_major"`
	Kafka         string `json:"kafka"`
	Debezium      string `json:"debezium,omitempty"`
	Partitions    int    `json:"partitions"`
	PayloadBytes  int    `json:"payload_bytes"`
	Rows          int    `json:"rows"`
	Runs          int    `json:"runs"`
}

// results are all measurements, one element per run.
type results struct {
	Environment environment `json:"environment"`
	Drains      []drain     `json:"drains"`
	Latencies   []latency   `json:"latencies"`
	Idle        []idle      `json:"idle,omitempty"`
	Growth      []growth    `json:"growth,omitempty"`
}

// summaries have one element per reader.
type summaries struct {
	Drains    []drainSummary   `json:"drains,omitempty"`
	Latencies []latencySummary `json:"latencies,omitempty"`
	Idle      []idleSummary    `json:"idle,omitempty"`
	Growth    []grown          `json:"growth,omitempty"`
}

func (r results) summarize() summaries {
	return summaries{summarizeDrains(r.Drains), summarizeLatencies(r.Latencies), summarizeIdle(r.Idle), grownOf(r.Growth)}
}

func (r results) print(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			results
			Summaries summaries `json:"summaries"`
		}{r, r.summarize()})
	}
	e := r.Environment
	fmt.Fprintf(w, "%d CPUs (%s), %s, PostgreSQL %d, %s, %d partitions, %d-byte payload, %d rows per backlog\n",
		e.CPUs, e.OS, e.Go, e.PostgresMajor, e.Kafka, e.Partitions, e.PayloadBytes, e.Rows)
	if e.Debezium != "" {
		fmt.Fprintln(w, e.Debezium)
	}
	fmt.Fprintf(w, "median (least-most) of %d runs; ratios are those of the relay to the reader in the same run\n", e.Runs)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	s := r.summarize()
	for _, part := range []func(io.Writer){s.printDrains, s.printLatencies, s.printIdle, s.printGrowth} {
		part(table)
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (s summaries) printDrains(w io.Writer) {
	if len(s.Drains) > 0 {
		fmt.Fprintln(w, "\nbacklog\treader\trows/s\tratio\treader CPU s/M\tratio\twalsender CPU s/M\tbroker CPU s/M\tbytes/row\tpeak RSS MiB\tidle cores")
	}
	for _, d := range s.Drains {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Backlog, d.Reader, d.RowsPerSecond.text(0), d.SpeedRatio.text(2),
			d.ReaderCPU.text(1), d.CPURatio.text(2), d.WalsenderCPU.text(1), d.KafkaCPU.text(1), d.BytesPerRow.text(0), d.PeakRSSMiB.text(0), d.IdleCores.text(2))
	}
}

func (s summaries) printLatencies(w io.Writer) {
	if len(s.Latencies) > 0 {
		fmt.Fprintln(w, "\nCOMMIT to consumer\treader\tcommitted/s\tp50 ms\tratio\tp99 ms\tratio\tmax ms")
	}
	for _, l := range s.Latencies {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", rateName(l.Rate), l.Reader, l.Committed.text(0),
			l.P50.text(2), l.P50Ratio.text(3), l.P99.text(2), l.P99Ratio.text(3), l.Max.text(1))
	}
}

func (s summaries) printIdle(w io.Writer) {
	if len(s.Idle) > 0 {
		fmt.Fprintln(w, "\nidle\tCPU, % of a core\twalsender CPU, % of a core")
	}
	for _, i := range s.Idle {
		fmt.Fprintf(w, "%s\t%s\t%s\n", i.Reader, i.CPU.number(2), i.Walsender.number(2))
	}
}

func (s summaries) printGrowth(w io.Writer) {
	if len(s.Growth) > 0 {
		fmt.Fprintln(w, "\ngrowth of\tto\trows\tseconds\trelay CPU s\tpeak RSS MiB\twork\texponent (1: linear)")
	}
	for _, g := range s.Growth {
		exponent := "-"
		if g.Exponent != 0 {
			exponent = fmt.Sprintf("%.2f", g.Exponent)
		}
		work := g.Work.text(2) + " s"
		if g.Factor != factorBacklog {
			perRow := spread{g.Work.Median * 1e6, g.Work.Min * 1e6, g.Work.Max * 1e6}
			work = perRow.text(1) + " µs/row"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", g.Factor, g.Value, g.Rows, g.Seconds.text(2), g.CPU.text(2), g.RSS.text(0), work, exponent)
	}
}
