package cdc

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// LSN is a byte position in the Postgres WAL. The zero LSN is invalid: it
// means "unknown", and to START_REPLICATION "wherever the slot stands".
// (PostgreSQL docs, "pg_lsn Type".)
type LSN uint64

// XID is a Postgres transaction id as pgoutput sends it (32 bits, wraps).
type XID uint32

// Timeline is a Postgres timeline id; a promotion starts the next one.
type Timeline uint32

// ParseLSN reads the form that Postgres prints, such as 16/B374D848.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q: want the form 16/B374D848", s)
	}
	h, errHigh := strconv.ParseUint(high, 16, 32)
	l, errLow := strconv.ParseUint(low, 16, 32)
	if errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("LSN %q: want the form 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// String prints the LSN as Postgres does.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// LogValue implements slog.LogValuer.
func (l LSN) LogValue() slog.Value { return slog.StringValue(l.String()) }

// MarshalText implements encoding.TextMarshaler.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}
