package notifier

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "notifier_"

// outcome is how a record was decided.
type outcome string

// The outcomes; each record counts once.
const (
	outcomeDelivered    outcome = "delivered"
	outcomeDuplicate    outcome = "duplicate"     // the inbox knew the event as settled
	outcomeFiltered     outcome = "filtered"      // too old
	outcomeUnknownType  outcome = "unknown_type"  // of a type that this version does not know
	outcomeDeadLettered outcome = "dead_lettered" // can never be a message
	outcomeGivenUp      outcome = "given_up"      // may have been posted, and at_most_once forbids to repeat
)

func outcomes() []outcome {
	return []outcome{outcomeDelivered, outcomeDuplicate, outcomeFiltered, outcomeUnknownType, outcomeDeadLettered, outcomeGivenUp}
}

// The parts of errors_total.
const (
	partInbox       = "inbox"
	partDeadLetters = "dead_letters"
	partFetch       = "fetch"
	partCommit      = "commit"
)

// partitionLag is how far one assigned partition is behind.
type partitionLag struct {
	topic     string
	partition int32
	records   int64
	oldest    time.Time // zero: nothing is unprocessed
}

// metrics are the notifier's instruments.
type metrics struct {
	consumed    *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	attempts    *prometheus.CounterVec
	retries     *prometheus.CounterVec
	repeated    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	endToEnd    *prometheus.HistogramVec
	rateWait    *prometheus.CounterVec
	deadLetters *prometheus.CounterVec
	inboxRows   *prometheus.GaugeVec
	inboxPruned prometheus.Counter
	errors      *prometheus.CounterVec
	rebalances  prometheus.Counter
	assigned    prometheus.Gauge
	paused      *prometheus.GaugeVec
	lagRecords  *prometheus.Desc
	lagSeconds  *prometheus.Desc

	name string                // of the destination
	lags func() []partitionLag // set before the first scrape; nil: none
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(name string) *metrics {
	counters := func(metric, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + metric, Help: help}, labels)
	}
	counter := func(metric, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + metric, Help: help})
	}
	gauges := func(metric, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + metric, Help: help}, labels)
	}
	histogram := func(metric, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + metric, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}, []string{"destination"})
	}
	partition := []string{"topic", "partition"}
	m := &metrics{
		name:        name,
		consumed:    counters("records_consumed_total", "Records taken from Kafka, repeats after a rebalance included.", "topic"),
		deliveries:  counters("deliveries_total", "Records decided, by outcome.", "destination", "outcome"),
		attempts:    counters("delivery_attempts_total", "Posts to the destination, by HTTP status (or config, connect, connection, timeout) and the destination's word.", "destination", "code", "error"),
		retries:     counters("delivery_retries_total", "Posts after which the same message is posted again, by reason.", "destination", "reason"),
		repeated:    counters("possibly_repeated_total", "Messages delivered with the note that they may be repeated.", "destination"),
		duration:    histogram("delivery_duration_seconds", "Time that a post took until its answer.", prometheus.ExponentialBuckets(0.01, 2, 12)),
		endToEnd:    histogram("end_to_end_latency_seconds", "Time from the event to the destination's acceptance.", []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}),
		rateWait:    counters("rate_limit_wait_seconds_total", "Time that messages waited for the destination's rate or pause.", "destination"),
		deadLetters: counters("dead_letter_records_total", "Records written to the dead letter topic, by reason.", "reason"),
		inboxRows:   gauges("inbox_rows", "Rows of the inbox by state, as of the last count.", "state"),
		inboxPruned: counter("inbox_pruned_total", "Rows deleted from the inbox because they were settled long ago."),
		errors:      counters("errors_total", "Failures that are repeated until they are cured, by part: inbox, dead_letters, fetch or commit.", "part"),
		rebalances:  counter("rebalances_total", "Changes of the assigned partitions."),
		assigned:    prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "assigned_partitions", Help: "Partitions that this member of the group consumes."}),
		paused:      gauges("paused", "1 while the destination is paused for the reason; refused needs a person.", "destination", "reason"),
		lagRecords:  prometheus.NewDesc(prefix+"consumer_lag_records", "Offsets between the next record to decide and the end of the partition at its last fetch; transaction markers count.", partition, nil),
		lagSeconds:  prometheus.NewDesc(prefix+"consumer_lag_seconds", "Age of the oldest fetched record that is not decided; 0 if there is none.", partition, nil),
	}
	m.appear()
	return m
}

// appear makes the series whose labels are known exist from the start: rate()
// misses the first increment of a counter that appears with it.
func (m *metrics) appear() {
	for _, o := range outcomes() {
		m.deliveries.WithLabelValues(m.name, string(o))
	}
	for _, reason := range pauseReasons() {
		m.retries.WithLabelValues(m.name, reason)
		m.paused.WithLabelValues(m.name, reason)
	}
	for _, reason := range []string{reasonBadEventID, reasonNoEventType, reasonUndecodable, reasonRejected} {
		m.deadLetters.WithLabelValues(reason)
	}
	for _, part := range []string{partInbox, partDeadLetters, partFetch, partCommit} {
		m.errors.WithLabelValues(part)
	}
	m.repeated.WithLabelValues(m.name)
	m.rateWait.WithLabelValues(m.name)
	m.duration.WithLabelValues(m.name)
	m.endToEnd.WithLabelValues(m.name)
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.consumed, m.deliveries, m.attempts, m.retries, m.repeated, m.duration, m.endToEnd, m.rateWait, m.deadLetters,
		m.inboxRows, m.inboxPruned, m.errors, m.rebalances, m.assigned, m.paused,
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
	ch <- m.lagRecords
	ch <- m.lagSeconds
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
	if m.lags == nil {
		return
	}
	now := time.Now()
	for _, lag := range m.lags() {
		partition := strconv.Itoa(int(lag.partition))
		seconds := 0.0
		if !lag.oldest.IsZero() {
			seconds = max(0, now.Sub(lag.oldest).Seconds())
		}
		ch <- prometheus.MustNewConstMetric(m.lagRecords, prometheus.GaugeValue, float64(lag.records), lag.topic, partition)
		ch <- prometheus.MustNewConstMetric(m.lagSeconds, prometheus.GaugeValue, seconds, lag.topic, partition)
	}
}

func (m *metrics) decided(o outcome) { m.deliveries.WithLabelValues(m.name, string(o)).Inc() }

// posted notes one attempt; to knows the answer already.
func (m *metrics) posted(a answer, took time.Duration, to *destination) {
	m.attempts.WithLabelValues(m.name, a.code, a.word).Inc()
	m.duration.WithLabelValues(m.name).Observe(took.Seconds())
	if to.paused != "" {
		m.retries.WithLabelValues(m.name, to.paused).Inc()
	}
	for _, reason := range pauseReasons() {
		value := 0.0
		if reason == to.paused {
			value = 1
		}
		m.paused.WithLabelValues(m.name, reason).Set(value)
	}
}
