package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// Sizes of the plot, in pixels.
const (
	panelWidth, panelHeight = 460, 320
	marginLeft, marginRight = 64, 16
	marginTop, marginBottom = 36, 44
	panelsPerRow            = 2
)

// plotGrowth draws one panel per factor, both axes logarithmic: the work as
// points with their spread, and dashed what linear growth from the first point
// would be.
func plotGrowth(all []growth) []byte {
	factors, points := grouped(grownOf(all), func(g grown) string { return g.Factor })
	rows := (len(factors) + panelsPerRow - 1) / panelsPerRow
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		panelsPerRow*panelWidth, rows*panelHeight)
	fmt.Fprintf(&svg, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for i, factor := range factors {
		drawPanel(&svg, i%panelsPerRow*panelWidth, i/panelsPerRow*panelHeight, factor, points[factor])
	}
	svg.WriteString("</svg>\n")
	return svg.Bytes()
}

// axis maps values to pixels, by their decimal logarithm.
type axis struct {
	low, high  float64 // logarithms, whole numbers
	from, upTo float64 // pixels
}

// axisOver has room for all values above 0.
func axisOver(from, upTo float64, values ...float64) axis {
	a := axis{low: math.Inf(1), high: math.Inf(-1), from: from, upTo: upTo}
	for _, value := range values {
		if value > 0 {
			a.low, a.high = min(a.low, math.Floor(math.Log10(value))), max(a.high, math.Ceil(math.Log10(value)))
		}
	}
	if math.IsInf(a.low, 1) {
		a.low, a.high = 0, 1
	}
	a.high = max(a.high, a.low+1)
	return a
}

func (a axis) at(value float64) float64 {
	if value <= 0 {
		return a.from
	}
	return a.from + (math.Log10(value)-a.low)/(a.high-a.low)*(a.upTo-a.from)
}

func drawPanel(svg *bytes.Buffer, left, top int, factor string, points []grown) {
	var xs, ys []float64
	for _, p := range points {
		xs, ys = append(xs, float64(p.Value)), append(ys, p.Work.Min, p.Work.Max)
	}
	x := axisOver(marginLeft, panelWidth-marginRight, xs...)
	y := axisOver(panelHeight-marginBottom, marginTop, ys...)
	unit := "seconds per row"
	if factor == factorBacklog {
		unit = "seconds"
	}
	fmt.Fprintf(svg, `<g transform="translate(%d %d)">`+"\n", left, top)
	fmt.Fprintf(svg, `<text x="%d" y="20" font-size="13">%s, by %s</text>`+"\n", marginLeft, unit, html.EscapeString(factor))
	for e := x.low; e <= x.high; e++ {
		at := x.at(math.Pow(10, e))
		fmt.Fprintf(svg, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>`, at, marginTop, at, panelHeight-marginBottom)
		fmt.Fprintf(svg, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", at, panelHeight-marginBottom+16, decade(e))
	}
	for e := y.low; e <= y.high; e++ {
		at := y.at(math.Pow(10, e))
		fmt.Fprintf(svg, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>`, marginLeft, at, panelWidth-marginRight, at)
		fmt.Fprintf(svg, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", marginLeft-6, at+4, decade(e))
	}
	drawLinear(svg, x, y, points)
	line := ""
	for _, p := range points {
		at, height := x.at(float64(p.Value)), y.at(p.Work.Median)
		line += fmt.Sprintf("%.1f,%.1f ", at, height)
		fmt.Fprintf(svg, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#1f5fa8"/>`, at, y.at(p.Work.Min), at, y.at(p.Work.Max))
		fmt.Fprintf(svg, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#1f5fa8"/>`+"\n", at, height)
	}
	fmt.Fprintf(svg, `<polyline points="%s" fill="none" stroke="#1f5fa8"/>`+"\n</g>\n", line)
}

// drawLinear draws proportional growth through the first point, as far as the
// panel goes.
func drawLinear(svg *bytes.Buffer, x, y axis, points []grown) {
	first, last := points[0], points[len(points)-1]
	factor := min(float64(last.Value)/float64(first.Value), math.Pow(10, y.high)/first.Work.Median)
	fmt.Fprintf(svg, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#888" stroke-dasharray="5 4"/>`+"\n",
		x.at(float64(first.Value)), y.at(first.Work.Median), x.at(float64(first.Value)*factor), y.at(first.Work.Median*factor))
}

// decade prints 10^e.
func decade(e float64) string {
	if e >= -2 && e <= 4 {
		return fmt.Sprintf("%g", math.Pow(10, e))
	}
	return fmt.Sprintf(`10<tspan dy="-5" font-size="8">%g</tspan>`, e)
}
