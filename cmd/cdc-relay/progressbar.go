package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// progressBar shows how far an audit is: as a bar that is drawn again on a
// terminal, else as a line every five seconds.
type progressBar struct {
	out      io.Writer
	terminal bool
	rows     int64 // estimate; 0: none
	began    time.Time
	shown    time.Time
	drawn    bool
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 30
)

func newProgressBar(out io.Writer, terminal bool, rows int64) *progressBar {
	now := time.Now()
	return &progressBar{out: out, terminal: terminal, rows: rows, began: now, shown: now}
}

func (b *progressBar) show(p audit.Progress) {
	now := time.Now()
	every := lineEvery
	if b.terminal {
		every = barEvery
	}
	if now.Sub(b.shown) < every {
		return
	}
	b.shown = now
	if !b.terminal {
		fmt.Fprintf(b.out, "cdc-relay: %s\n", b.text(p, now))
		return
	}
	b.drawn = true
	fmt.Fprintf(b.out, "\r\x1b[K%s", b.text(p, now))
}

func (b *progressBar) text(p audit.Progress, now time.Time) string {
	rate := float64(p.Done) / max(0.001, now.Sub(b.began).Seconds())
	text := fmt.Sprintf("audit %-9s %d", p.Phase, p.Done)
	if b.rows > 0 && p.Done > 0 {
		part := min(1, float64(p.Done)/float64(b.rows))
		full := int(part * barWidth)
		text = fmt.Sprintf("audit %-9s [%s%s] %3.0f%%  %d", p.Phase, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*part, p.Done)
	}
	if p.Phase == "rows" {
		text += fmt.Sprintf("  %.0f/s", rate)
	}
	return text
}

// clear removes the bar.
func (b *progressBar) clear() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
