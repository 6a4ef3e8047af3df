package routing

import "github.com/cdc-relay/cdc-relay/cdc"

// lent is the memory of the record that Route returned last.
type lent struct {
	bytes   []byte
	headers []cdc.Header
	used    int // of bytes
}

// reset takes everything back.
func (l *lent) reset() { l.used = 0 }

// roomForBytes returns an empty slice with room for n bytes; more than that
// moves elsewhere.
func (l *lent) roomForBytes(n int) []byte {
	if n > len(l.bytes)-l.used {
		l.bytes, l.used = make([]byte, max(n, 2*len(l.bytes), 1024)), 0
	}
	room := l.bytes[l.used : l.used : l.used+n]
	l.used += n
	return room
}

// roomForHeaders returns an empty slice with room for n headers; a record has
// one.
func (l *lent) roomForHeaders(n int) []cdc.Header {
	if n > len(l.headers) {
		l.headers = make([]cdc.Header, max(n, 32))
	}
	return l.headers[:0:n]
}
