// Package metrics shows what the relay does as Prometheus metrics. Metrics
// implements cdc.Observer, which counts, and prometheus.Collector, which asks
// for the relay's status and for the slot when it is scraped.
//
// # Guarantees
//
// One scrape makes at most one query, waits at most two seconds for it, and
// reuses an answer that is younger than a second. A value that is not known is
// left out, never sent as 0. The number of series is bounded: topics past the
// first hundred share the label value "other", all other label values are of
// closed lists.
//
// # What it does not do
//
// It does not serve HTTP, has no global registry, and shows no bare LSN: those
// are in the status; only differences of two LSNs are metrics. It knows nothing
// of the Go runtime, the process or the Kafka client, which have collectors of
// their own.
package metrics
