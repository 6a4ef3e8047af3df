package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// ID is an event id, which has to be a UUID. The zero ID is no id.
type ID [16]byte

// ParseID reads the canonical form, 8-4-4-4-12 hexadecimal digits.
func ParseID(text []byte) (ID, error) {
	var id ID
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return id, fmt.Errorf("event id %.80q is no UUID", text)
	}
	var digits [32]byte
	n := copy(digits[:], text[:8])
	n += copy(digits[n:], text[9:13])
	n += copy(digits[n:], text[14:18])
	n += copy(digits[n:], text[19:23])
	copy(digits[n:], text[24:])
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return ID{}, fmt.Errorf("event id %.80q is no UUID", text)
	}
	return id, nil
}

// IDAt is the lowest id that a UUIDv7 made at t can have.
func IDAt(t time.Time) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:], uint64(max(0, t.UnixMilli()))<<16)
	return id
}

// String is the canonical form.
func (id ID) String() string {
	text := make([]byte, 36)
	hex.Encode(text, id[:4])
	hex.Encode(text[9:], id[4:6])
	hex.Encode(text[14:], id[6:8])
	hex.Encode(text[19:], id[8:10])
	hex.Encode(text[24:], id[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text)
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(text)
	return err
}

// IsZero says whether it is no id.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders as Postgres orders uuid.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// Time is when a UUIDv7 was made, to the millisecond; zero for other ids.
func (id ID) Time() time.Time {
	if id[6]>>4 != 7 {
		return time.Time{}
	}
	return time.UnixMilli(id.milliseconds()).UTC()
}

// Range is a part of the outbox, From included and To excluded. The zero value
// is all of it.
type Range struct {
	From ID
	To   ID // zero: no bound
}

// Contains says whether the id is in the range.
func (r Range) Contains(id ID) bool {
	return id.Compare(r.From) >= 0 && (r.To.IsZero() || id.Compare(r.To) < 0)
}

// Made is when an id was made: of a UUIDv7, or of a bound that IDAt made. It is
// zero for other ids.
func (id ID) Made() time.Time {
	if id[6]>>4 == 7 || !id.IsZero() && id == IDAt(time.UnixMilli(id.milliseconds())) {
		return time.UnixMilli(id.milliseconds()).UTC()
	}
	return time.Time{}
}

func (id ID) milliseconds() int64 { return int64(binary.BigEndian.Uint64(id[:]) >> 16) }
