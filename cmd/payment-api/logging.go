package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// Log attribute keys of this package.
const (
	keyVersion      = "version"
	keyAddress      = "address"
	keyAdminAddress = "admin_address"
	keyAPIKeys      = "api_keys"
	keyReason       = "reason"
)

// logger logs to w: text on a terminal, JSON otherwise.
func (s *settings) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		panic("log level passed the check: " + s.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	file, ok := w.(*os.File)
	onTerminal := ok && term.IsTerminal(int(file.Fd()))
	if s.logFormat == "json" || s.logFormat == "auto" && !onTerminal {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
