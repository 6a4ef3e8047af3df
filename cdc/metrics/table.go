package metrics

import (
	"fmt"
	"strings"
)

// Row describes one metric.
type Row struct {
	Name   string
	Type   string // counter, gauge, histogram
	Labels []string
	Help   string
}

// Table lists every metric of the relay itself, in the order of its parts:
// build, counters and histograms, status, slot.
func Table() []Row { return newInstruments("").rows }

// Markdown is the reference page made of a table.
func Markdown(table []Row) string {
	var b strings.Builder
	b.WriteString(markdownHead)
	b.WriteString("| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, row := range table {
		var labels []string
		for _, label := range row.Labels {
			labels = append(labels, "`"+label+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", row.Name, row.Type, strings.Join(labels, ", "), strings.ReplaceAll(row.Help, "|", `\|`))
	}
	b.WriteString(markdownTail)
	return b.String()
}

const markdownHead = `# Metrics

<!-- Generated from the registry by "go test ./cdc/metrics -run TestDocsAreCurrent -update"; a test compares. -->

The relay serves them at ` + "`/metrics`" + ` of its admin address, also as a standby and in every trouble but the end of the process.

The headline is ` + "`cdc_relay_replication_lag_seconds`" + `. The latency histogram is fed when a batch is recorded, so it is silent in
a stall; objectives and alerts rest on the lag. Slot metrics are read by every replica: combine replicas by ` + "`max by (job, slot)`" + `.
A value that is not known is absent, never 0.

`

const markdownTail = `
Histograms are exposed with classic buckets, and as native histograms to a Prometheus that asks for them.

Label values: ` + "`topic`" + ` is the name of one of the first hundred topics of the process, then ` + "`other`" + `. The
` + "`reason`" + ` of a halt is of the closed list of halts. The ` + "`reason`" + ` of a failure is the same, or else
` + "`transaction-timeout`, `undecodable`, `postgres` (the server said no), `kafka` (a broker said no), `network`, `other`" + `.

Go's own (` + "`go_*`" + `) and the process's (` + "`process_*`" + `) metrics stand beside these,
the Kafka client's (connections, requests and bytes by node) under ` + "`cdc_relay_kafka_*`" + `.
`
