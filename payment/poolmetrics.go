package payment

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// poolCollector reads the pool's own counters at every scrape.
type poolCollector struct {
	pool *pgxpool.Pool

	acquired, idle, maximum            *prometheus.Desc
	acquires, waits, waited, cancelled *prometheus.Desc
}

var _ prometheus.Collector = (*poolCollector)(nil)

func newPoolCollector(pool *pgxpool.Pool) *poolCollector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("pgxpool_"+name, help, nil, nil) }
	return &poolCollector{
		pool:      pool,
		acquired:  desc("acquired_connections", "Connections in use."),
		idle:      desc("idle_connections", "Connections waiting for use."),
		maximum:   desc("max_connections", "Connections at most."),
		acquires:  desc("acquires_total", "Connections taken out of the pool."),
		waits:     desc("acquire_waits_total", "Connections taken that had to be waited for."),
		waited:    desc("acquire_wait_seconds_total", "Time spent waiting for a connection because none was idle."),
		cancelled: desc("acquires_cancelled_total", "Waits for a connection that were given up."),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, descs)
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(metrics chan<- prometheus.Metric) {
	stat := c.pool.Stat()
	gauge := func(desc *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	counter := func(desc *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value)
	}
	gauge(c.acquired, float64(stat.AcquiredConns()))
	gauge(c.idle, float64(stat.IdleConns()))
	gauge(c.maximum, float64(stat.MaxConns()))
	counter(c.acquires, float64(stat.AcquireCount()))
	counter(c.waits, float64(stat.EmptyAcquireCount()))
	counter(c.waited, stat.EmptyAcquireWaitTime().Seconds())
	counter(c.cancelled, float64(stat.CanceledAcquireCount()))
}
