package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"
)

// Log attribute keys of this package.
const (
	keyRelay    = "relay"
	keySlot     = "slot"
	keyVersion  = "version"
	keyAddress  = "address"
	keyDelivery = "delivery"
	keyReason   = "reason"
	keyStep     = "step"
	keyOutcome  = "outcome"
	keyDropped  = "dropped"
)

// newLogger logs to w: text with short times on a terminal, JSON otherwise. A
// queue tells of dropped lines in the same format.
func newLogger(c *LogConfig, w io.Writer) *slog.Logger {
	terminal := isTerminal(w)
	if queue, ok := w.(*logQueue); ok {
		queue.tellDropped(func(dropped int) []byte {
			var line bytes.Buffer
			record := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped here, nobody read stderr", 0)
			record.AddAttrs(slog.Int(keyDropped, dropped))
			_ = newHandler(c, &line, terminal).Handle(context.Background(), record) // a buffer takes everything
			return line.Bytes()
		})
	}
	return slog.New(newHandler(c, w, terminal))
}

func newHandler(c *LogConfig, w io.Writer, terminal bool) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic("log level passed validation: " + c.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" || c.Format == "auto" && !terminal {
		return slog.NewJSONHandler(w, options)
	}
	if terminal {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		}
	}
	return slog.NewTextHandler(w, options)
}

func isTerminal(w io.Writer) bool {
	if queue, ok := w.(*logQueue); ok {
		w = queue.to
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
