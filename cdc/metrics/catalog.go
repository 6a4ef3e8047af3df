package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "cdc_relay_"

// The types of metrics as Table names them.
const (
	typeCounter   = "counter"
	typeGauge     = "gauge"
	typeHistogram = "histogram"
)

// catalog makes metrics and notes each one it made, so that the table of
// metrics cannot differ from the metrics.
type catalog struct {
	rows     []Row
	constant prometheus.Labels
}

func (c *catalog) note(name, kind, help string, labels []string) string {
	var all []string
	for label := range c.constant {
		all = append(all, label)
	}
	slices.Sort(all)
	c.rows = append(c.rows, Row{Name: prefix + name, Type: kind, Labels: append(all, labels...), Help: help})
	return prefix + name
}

func (c *catalog) counter(name, help string, labels ...string) *prometheus.CounterVec {
	full := c.note(name, typeCounter, help, labels)
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: full, Help: help, ConstLabels: c.constant}, labels)
}

// histogram has classic buckets for every Prometheus and a native form for
// those that ask for it.
func (c *catalog) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	full := c.note(name, typeHistogram, help, labels)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: full, Help: help, ConstLabels: c.constant, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
	}, labels)
}

// gauge is filled at scrape, so only its descriptor is made.
func (c *catalog) gauge(name, help string, labels ...string) *prometheus.Desc {
	full := c.note(name, typeGauge, help, labels)
	return prometheus.NewDesc(full, help, labels, c.constant)
}
