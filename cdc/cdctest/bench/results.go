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
	Partitions    int    `json:"partitions"`
	PayloadBytes  int    `json:"payload_bytes"`
	Rows          int    `json:"rows"`
}

// results are all measurements, one element per run.
type results struct {
	Environment environment `json:"environment"`
	Drains      []drain     `json:"drains"`
	Latencies   []latency   `json:"latencies"`
}

func (r results) print(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	e := r.Environment
	fmt.Fprintf(w, "%d CPUs (%s), %s, PostgreSQL %d, %s, %d partitions, %d-byte payload, %d rows per backlog\n\n",
		e.CPUs, e.OS, e.Go, e.PostgresMajor, e.Kafka, e.Partitions, e.PayloadBytes, e.Rows)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "backlog\treader\trows/s\treader CPU s/M\twalsender CPU s/M\tpeak RSS MiB")
	for _, d := range r.Drains {
		fmt.Fprintf(table, "%s\t%s\t%.0f\t%s\t%s\t%s\n", d.Backlog, d.Reader, d.RowsPerSecond, figure(d.ReaderCPU), figure(d.WalsenderCPU), figure(d.PeakRSSMiB))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(table, "COMMIT to consumer\ttransactions\tp50 ms\tp99 ms\tmax ms")
	for _, l := range r.Latencies {
		fmt.Fprintf(table, "%d tx/s\t%d\t%.2f\t%.2f\t%.2f\n", l.TransactionsPerSecond, l.Samples, l.P50Milliseconds, l.P99Milliseconds, l.MaxMilliseconds)
	}
	return table.Flush()
}

// figure prints what is not known as a dash.
func figure(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}
