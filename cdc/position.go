package cdc

import (
	"cmp"
	"fmt"
	"log/slog"
)

// Position says where a row stands in the history of one database: the commit
// LSN of its transaction and its 1-based ordinal among the outbox rows of that
// transaction. Serial 0 stands before the first row of a transaction.
//
// LSNs of rows are deliberately absent: the rows of one COPY share one, and
// they do not rise from transaction to transaction.
type Position struct {
	Generation uint16
	Timeline   Timeline
	CommitLSN  LSN
	Serial     uint32
}

// Compare orders positions of one generation and one history: -1, 0 or +1.
// The timeline does not take part, since commit LSNs rise across a promotion.
func (p Position) Compare(other Position) int {
	return cmp.Or(
		cmp.Compare(p.Generation, other.Generation),
		cmp.Compare(p.CommitLSN, other.CommitLSN),
		cmp.Compare(p.Serial, other.Serial),
	)
}

// Header is the form that travels in the record header cdc-relay-position;
// headers of one relay compare as text in the order of their positions.
func (p Position) Header() string {
	return fmt.Sprintf("%04x-%016x-%08x", p.Generation, uint64(p.CommitLSN), p.Serial)
}

// String is for people.
func (p Position) String() string { return fmt.Sprintf("%s:%d", p.CommitLSN, p.Serial) }

// LogValue implements slog.LogValuer.
func (p Position) LogValue() slog.Value { return slog.StringValue(p.String()) }

// ParsePositionHeader reads what Header wrote; the timeline is not in it.
func ParsePositionHeader(s string) (Position, error) {
	var p Position
	var commit uint64
	if len(s) != 4+1+16+1+8 {
		return p, fmt.Errorf("position header %q: want <generation 4 hex>-<commit LSN 16 hex>-<serial 8 hex>", s)
	}
	if _, err := fmt.Sscanf(s, "%04x-%016x-%08x", &p.Generation, &commit, &p.Serial); err != nil {
		return p, fmt.Errorf("position header %q: %w", s, err)
	}
	p.CommitLSN = LSN(commit)
	return p, nil
}
