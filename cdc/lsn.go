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

// WALPages is the geometry of a server's WAL, fixed when the server was built or
// initialised: wal_block_size and wal_segment_size in bytes. The zero value is
// an unknown geometry.
type WALPages struct {
	BlockBytes   uint64 `json:"block_bytes"`
	SegmentBytes uint64 `json:"segment_bytes"`
}

// Sizes of the header that each WAL page begins with; the first of a segment
// has the long one. (PostgreSQL source, xlog_internal.h.)
const (
	pageHeaderBytes     = 24
	longPageHeaderBytes = 40
)

// EndOfData moves an LSN that stands right behind a page header to where that
// page begins. pg_current_wal_insert_lsn() is the place of the next record,
// behind the header; the end LSN of a commit that fills the page is the place
// before it, and there is nothing between the two.
func (w WALPages) EndOfData(lsn LSN) LSN {
	if w.BlockBytes == 0 || w.SegmentBytes == 0 {
		return lsn
	}
	switch {
	case uint64(lsn)%w.SegmentBytes == longPageHeaderBytes:
		return lsn - longPageHeaderBytes
	case uint64(lsn)%w.BlockBytes == pageHeaderBytes && uint64(lsn)%w.SegmentBytes != pageHeaderBytes:
		return lsn - pageHeaderBytes
	}
	return lsn
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
