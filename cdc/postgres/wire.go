package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

var (
	errShort    = errors.New("message ends early")
	errTrailing = errors.New("message has bytes left over")
	errLength   = errors.New("length is out of bounds")
)

// wire reads a message front to back. After the first error every read returns
// zero values, so that one check of err at the end is enough.
type wire struct {
	rest []byte
	err  error
}

func (w *wire) take(n int) []byte {
	if w.err != nil {
		return nil
	}
	if n < 0 {
		w.err = errLength
		return nil
	}
	if n > len(w.rest) {
		w.err = errShort
		return nil
	}
	taken := w.rest[:n:n]
	w.rest = w.rest[n:]
	return taken
}

func (w *wire) uint8() uint8 {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) uint16() uint16 {
	if b := w.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *wire) uint32() uint32 {
	if b := w.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *wire) uint64() uint64 {
	if b := w.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (w *wire) lsn() cdc.LSN { return cdc.LSN(w.uint64()) }

// time reads microseconds since 2000-01-01 UTC.
func (w *wire) time() time.Time { return fromServerTime(int64(w.uint64())) }

// text reads up to a zero byte.
func (w *wire) text() string {
	if w.err != nil {
		return ""
	}
	end := bytes.IndexByte(w.rest, 0)
	if end < 0 {
		w.err = errShort
		return ""
	}
	s := string(w.rest[:end])
	w.rest = w.rest[end+1:]
	return s
}

// done returns the first error, or that bytes are left.
func (w *wire) done() error {
	if w.err == nil && len(w.rest) > 0 {
		w.err = errTrailing
	}
	return w.err
}

// serverEpoch is 2000-01-01 UTC in microseconds of Unix time.
const serverEpoch = 946_684_800_000_000

func fromServerTime(micros int64) time.Time {
	return time.UnixMicro(micros + serverEpoch).UTC()
}

func toServerTime(t time.Time) int64 { return t.UnixMicro() - serverEpoch }
