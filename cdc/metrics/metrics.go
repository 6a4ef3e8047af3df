package metrics

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// maxTopics is how many topics have series of their own.
const maxTopics = 100

// otherTopic collects the topics past maxTopics.
const otherTopic = "other"

// Metrics counts what the relay reports and shows the relay's status. Make it
// with New.
type Metrics struct {
	cfg Config
	instruments
	slot slotLook

	lastRecordedNanos atomic.Int64 // 0: nothing yet

	// topics is touched by the Observer's methods alone, which are all called
	// from one goroutine.
	topics map[cdc.Topic]topicSeries
}

var (
	_ cdc.Observer         = (*Metrics)(nil)
	_ prometheus.Collector = (*Metrics)(nil)
)

// instruments are all metrics and the table of them.
type instruments struct {
	counted
	scraped
	rows []Row
}

// topicSeries are the series of one topic, looked up once.
type topicSeries struct {
	records, bytes prometheus.Counter
	latency        prometheus.Observer
}

// New makes the metrics and registers them.
func New(cfg Config) (*Metrics, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	m := &Metrics{cfg: cfg, instruments: newInstruments(cfg.Slot), topics: map[cdc.Topic]topicSeries{}}
	m.appear()
	if err := cfg.Registerer.Register(m); err != nil {
		return nil, err
	}
	return m, nil
}

func newInstruments(slot string) instruments {
	c := &catalog{}
	build := newBuild(c)
	c.constant = prometheus.Labels{"slot": slot}
	i := instruments{counted: newCounted(c), scraped: newScraped(c)}
	i.build, i.rows = build, c.rows
	return i
}

// appear makes the series whose labels are known exist from the start: rate()
// misses the first increment of a counter that appears with it.
func (m *Metrics) appear() {
	for _, counter := range m.unlabelled() {
		counter.WithLabelValues()
	}
	m.batchRows.WithLabelValues()
	m.commitDuration.WithLabelValues()
	for _, state := range cdc.States {
		m.stateChanges.WithLabelValues(string(state))
	}
	for _, reason := range haltReasons() {
		m.failures.WithLabelValues(string(reason))
	}
	for _, reason := range []string{reasonTransactionTimeout, reasonUndecodable, reasonPostgres, reasonKafka, reasonNetwork, reasonOther} {
		m.restarts.WithLabelValues(reason)
		m.failures.WithLabelValues(reason)
	}
}

func (m *Metrics) unlabelled() []*prometheus.CounterVec {
	counters := []*prometheus.CounterVec{m.transactions, m.counted.rows, m.skipped, m.parked, m.ignored, m.rowBytes, m.batches}
	if m.cfg.SlotStats != nil {
		counters = append(counters, m.slotQueries, m.slotQueryErrors)
	}
	return counters
}

// StateChanged implements cdc.Observer. From and to are equal at a further
// failure in the same state.
func (m *Metrics) StateChanged(from, to cdc.State, cause *cdc.Problem) {
	if from != to {
		m.stateChanges.WithLabelValues(string(to)).Inc()
	}
	if to == cdc.StateRetrying || to == cdc.StateStalled {
		m.restarts.WithLabelValues(failureReason(cause)).Inc()
	}
}

// Failed implements cdc.Observer.
func (m *Metrics) Failed(cause *cdc.Problem) {
	m.failures.WithLabelValues(failureReason(cause)).Inc()
}

// Received implements cdc.Observer.
func (m *Metrics) Received(counts cdc.ReceivedCounts) {
	m.transactions.WithLabelValues().Add(float64(counts.Transactions))
	m.counted.rows.WithLabelValues().Add(float64(counts.Rows))
	m.skipped.WithLabelValues().Add(float64(counts.SkippedRows))
	m.ignored.WithLabelValues().Add(float64(counts.Ignored))
	m.rowBytes.WithLabelValues().Add(float64(counts.Bytes))
}

// Recorded implements cdc.Observer. It keeps nothing of the batch.
func (m *Metrics) Recorded(batch *cdc.Batch, took time.Duration, now time.Time) {
	m.batches.WithLabelValues().Inc()
	m.commitDuration.WithLabelValues().Observe(took.Seconds())
	m.lastRecordedNanos.Store(now.UnixNano())
	if len(batch.Records) == 0 {
		return
	}
	m.batchRows.WithLabelValues().Observe(float64(len(batch.Records)))
	status := m.cfg.Status()
	serverNow := now.Add(status.ServerClock)
	for i := range batch.Records {
		record := &batch.Records[i]
		series := m.seriesOf(record.Topic)
		series.records.Inc()
		if record.Parked != "" {
			m.parked.WithLabelValues().Inc()
		}
		series.bytes.Add(float64(contentBytes(record)))
		if i < len(batch.CommitTimes) {
			series.latency.Observe(max(0, serverNow.Sub(batch.CommitTimes[i]).Seconds()))
		}
	}
}

func (m *Metrics) seriesOf(topic cdc.Topic) topicSeries {
	if series, ok := m.topics[topic]; ok {
		return series
	}
	// The map is bounded too: a topic past the limit is looked up every time.
	if len(m.topics) >= maxTopics {
		return m.makeSeries(otherTopic)
	}
	series := m.makeSeries(string(topic))
	m.topics[topic] = series
	return series
}

func (m *Metrics) makeSeries(label string) topicSeries {
	return topicSeries{
		records: m.records.WithLabelValues(label),
		bytes:   m.recordBytes.WithLabelValues(label),
		latency: m.latency.WithLabelValues(label),
	}
}

// contentBytes is what the record carries, without Kafka's framing.
func contentBytes(record *cdc.Record) int {
	n := len(record.Key) + len(record.Value)
	for i := range record.Headers {
		n += len(record.Headers[i].Key) + len(record.Headers[i].Value)
	}
	return n
}

func goVersion() string { return runtime.Version() }
