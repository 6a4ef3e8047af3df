package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, collector := range m.vectors() {
		collector.Describe(ch)
	}
	for _, desc := range []*prometheus.Desc{
		m.build, m.state, m.delivery, m.halted, m.active, m.lag, m.owedRows, m.owedBytes, m.unrecorded, m.unconfirmed,
		m.lastRecorded, m.lastStep, m.clockOffset, m.slotExists, m.slotActive, m.slotWALStatus, m.slotLag,
		m.slotRetained, m.slotSafe, m.slotXMinAge, m.slotQueryDuration,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. The slot is looked up first, so that
// the counters of looks include this one.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	out := output{ch}
	if m.cfg.SlotStats != nil {
		m.collectSlot(out)
	}
	m.collectStatus(out)
	for _, collector := range m.vectors() {
		collector.Collect(ch)
	}
}

func (m *Metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.transactions, m.counted.rows, m.skipped, m.parked, m.ignored, m.rowBytes,
		m.batches, m.batchRows, m.commitDuration, m.records, m.recordBytes, m.latency,
		m.stateChanges, m.restarts, m.failures, m.slotQueries, m.slotQueryErrors,
	}
}

// output sends gauges to one scrape.
type output struct{ ch chan<- prometheus.Metric }

func (o output) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func (o output) flag(desc *prometheus.Desc, on bool, labels ...string) {
	value := 0.0
	if on {
		value = 1
	}
	o.gauge(desc, value, labels...)
}

func (o output) timestamp(desc *prometheus.Desc, at time.Time) {
	o.gauge(desc, float64(at.UnixMicro())/1e6)
}

func (m *Metrics) collectStatus(out output) {
	status := m.cfg.Status()
	out.gauge(m.build, 1, m.cfg.Version, m.cfg.Revision, goVersion())
	for _, state := range cdc.States {
		out.flag(m.state, status.State == state, string(state))
	}
	if status.Mode != "" {
		out.gauge(m.delivery, 1, string(status.Mode))
	}
	halt := ""
	if status.State == cdc.StateHalted {
		halt = haltReason(status.Cause)
	}
	for _, reason := range haltReasons() {
		out.flag(m.halted, halt == string(reason), string(reason))
	}
	out.flag(m.halted, halt == reasonOther, reasonOther)
	out.flag(m.active, status.Active)
	if lag, known := status.Lag(m.cfg.Now()); known {
		out.gauge(m.lag, lag.Seconds())
	}
	out.gauge(m.owedRows, float64(status.OwedRows))
	out.gauge(m.owedBytes, float64(status.OwedBytes))
	if status.Active {
		m.collectMarks(out, &status)
	}
	if nanos := m.lastRecordedNanos.Load(); nanos != 0 {
		out.timestamp(m.lastRecorded, time.Unix(0, nanos))
	}
	if !status.MovedAt.IsZero() {
		out.timestamp(m.lastStep, status.MovedAt)
	}
	out.gauge(m.clockOffset, status.ServerClock.Seconds())
}

// collectMarks shows distances between marks. A mark of 0 is not known.
func (m *Metrics) collectMarks(out output, status *cdc.Status) {
	if status.ReceivedLSN != 0 && status.RecordedLSN != 0 {
		out.gauge(m.unrecorded, distance(status.ReceivedLSN, status.RecordedLSN))
	}
	if status.RecordedLSN != 0 && status.ConfirmedLSN != 0 {
		out.gauge(m.unconfirmed, distance(status.RecordedLSN, status.ConfirmedLSN))
	}
}

// distance is 0 where the marks were read at different moments and crossed, or
// where a stream begins below what is recorded.
func distance(end, begin cdc.LSN) float64 {
	if end < begin {
		return 0
	}
	return float64(end - begin)
}
