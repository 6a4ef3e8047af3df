package main

import (
	"context"
	"fmt"
	"math"
)

// growth is one measurement of the relay with one factor changed.
type growth struct {
	Factor     string  `json:"factor"`
	Value      int     `json:"value"`
	Run        int     `json:"run"`
	Rows       int     `json:"rows"`
	Topics     int     `json:"topics"`
	Partitions int     `json:"partitions"` // of each topic
	Payload    int     `json:"payload_bytes"`
	Seconds    float64 `json:"seconds"`
	RelayCPU   float64 `json:"relay_cpu_s"`
	PeakRSSMiB float64 `json:"peak_rss_mib"`
	// Work is what has to be proportional at most to the factor's value: seconds,
	// per row where the factor is not the number of rows.
	Work float64 `json:"work_s"`
}

// The factors.
const (
	factorBacklog    = "rows of the backlog"
	factorTopics     = "topics of two partitions"
	factorPartitions = "partitions of one topic"
	factorPayload    = "bytes of the payload"
)

// topicPartitions is the number of partitions of each topic where topics grow.
const topicPartitions = 2

// growthBytes bounds the payloads of one backlog where they grow.
const growthBytes = 400 << 20

// points returns what is measured, in the order of the plots.
func (o growthOptions) points() (points []growth) {
	base := growth{Rows: o.rows, Topics: 1, Partitions: partitions, Payload: payloadBytes}
	add := func(factor string, values []int, change func(g *growth, value int)) {
		for _, value := range values {
			g := base
			g.Factor, g.Value = factor, value
			change(&g, value)
			points = append(points, g)
		}
	}
	add(factorBacklog, o.backlogs, func(g *growth, value int) { g.Rows = value })
	add(factorTopics, o.topics, func(g *growth, value int) { g.Topics, g.Partitions = value, topicPartitions })
	add(factorPartitions, o.partitions, func(g *growth, value int) { g.Partitions = value })
	add(factorPayload, o.sizes, func(g *growth, value int) {
		g.Payload, g.Rows = value, max(writers, min(g.Rows, growthBytes/value))
	})
	return points
}

func (b *bed) measureGrowth(ctx context.Context, opts options, p *progress, results *results) error {
	for run := range opts.runs {
		for _, point := range opts.growth.points() {
			p.step("growth: run %d of %d, %d %s", run+1, opts.runs, point.Value, point.Factor)
			point.Run = run + 1
			v := variant{compression: opts.codecs[0], delivery: opts.delivery[0]}
			if err := b.grow(ctx, v, &point); err != nil {
				return fmt.Errorf("%d %s: %w", point.Value, point.Factor, err)
			}
			results.Growth = append(results.Growth, point)
		}
	}
	return nil
}

// grow measures one point.
func (b *bed) grow(ctx context.Context, v variant, g *growth) error {
	d, err := b.newDatabase(ctx)
	if err != nil {
		return err
	}
	v.topics, v.partitions = g.Topics, g.Partitions
	r, err := b.newRelay(ctx, d, v)
	if err != nil {
		return err
	}
	backlog, err := b.fill(ctx, d, oneRowTransactions, g.Rows, g.Topics, g.Payload)
	if err != nil {
		return err
	}
	drained, err := b.relayBacklog(ctx, r, backlog)
	if err != nil {
		return err
	}
	g.Seconds, g.PeakRSSMiB = drained.Seconds, drained.PeakRSSMiB
	g.RelayCPU = drained.ReaderCPU * float64(g.Rows) / 1e6
	g.Work = g.Seconds
	if g.Factor != factorBacklog {
		g.Work /= float64(g.Rows)
	}
	return b.dropDatabase(ctx, d)
}

// grown is one point over all runs.
type grown struct {
	Factor  string `json:"factor"`
	Value   int    `json:"value"`
	Rows    int    `json:"rows"`
	Seconds spread `json:"seconds"`
	CPU     spread `json:"relay_cpu_s"`
	RSS     spread `json:"peak_rss_mib"`
	Work    spread `json:"work_s"`
	// Exponent is the e of work ~ value^e from the point before: 1 is linear. 0
	// at the first point.
	Exponent float64 `json:"exponent"`
}

// grownOf summarizes the runs, in the order of the points.
func grownOf(all []growth) (points []grown) {
	type key struct {
		factor string
		value  int
	}
	keys, byKey := grouped(all, func(g growth) key { return key{g.Factor, g.Value} })
	for _, k := range keys {
		runs := byKey[k]
		point := grown{
			Factor: k.factor, Value: k.value, Rows: runs[0].Rows,
			Seconds: spreadOf(runs, func(g growth) float64 { return g.Seconds }),
			CPU:     spreadOf(runs, func(g growth) float64 { return g.RelayCPU }),
			RSS:     spreadOf(runs, func(g growth) float64 { return g.PeakRSSMiB }),
			Work:    spreadOf(runs, func(g growth) float64 { return g.Work }),
		}
		if len(points) > 0 {
			before := points[len(points)-1]
			if before.Factor == point.Factor && before.Value != point.Value && before.Work.Median > 0 {
				point.Exponent = math.Log(point.Work.Median/before.Work.Median) / math.Log(float64(point.Value)/float64(before.Value))
			}
		}
		points = append(points, point)
	}
	return points
}
