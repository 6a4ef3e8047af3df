package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Log attribute keys of this package.
const (
	keyRelay   = "relay"
	keySlot    = "slot"
	keyVersion = "version"
	keyAddress = "address"
	keyReason  = "reason"
	keyStep    = "step"
	keyOutcome = "outcome"
)

// newLogger logs to w: text with short times on a terminal, JSON otherwise.
func newLogger(c *LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic("log level passed validation: " + c.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" || c.Format == "auto" && !isTerminal(w) {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	if isTerminal(w) {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
