package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Headers that mark records which are not of the stream.
const (
	HeaderBackfill = "cdc-relay-backfill" // its value is the run's id
	HeaderResync   = "cdc-relay-resync"
)

// Headers that follow from when a row was committed and not from the row. The
// time of an event does where the row has no created_at; a time that only
// happens to be equal on one side would look like a change, so it is left out
// of every comparison.
const (
	headerPosition   = "cdc-relay-position"
	headerCommitTime = "cdc-relay-commit-time"
	headerSequence   = "ce_sequence"
	headerTime       = "ce_time"
	headerSource     = "ce_source"
	headerType       = "content-type"
)

var structuredType = []byte("application/cloudevents+json")

func headerOf(headers []cdc.Header, name string) (value []byte, ok bool) {
	for i := range headers {
		if headers[i].Key == name {
			return headers[i].Value, true
		}
	}
	return nil, false
}

// keyHash is never 0 for a key.
func (r *run) keyHash(key []byte) uint64 {
	if key == nil {
		return 0
	}
	return max(1, maphash.Bytes(r.seed, key))
}

// contentHash is equal for a record and for what its row routes to, whatever
// the position and the commit time.
func (r *run) contentHash(key, value []byte, headers []cdc.Header) uint64 {
	if r.cfg.IgnoreContent {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(r.seed)
	write := func(b []byte) {
		var size [9]byte
		if b != nil {
			size[0] = 1
		}
		binary.BigEndian.PutUint64(size[1:], uint64(len(b)))
		_, _ = h.Write(size[:]) // a Hash never fails
		_, _ = h.Write(b)
	}
	write(key)
	structured := false
	for i := range headers {
		switch headers[i].Key {
		case headerPosition, headerCommitTime, headerSequence, headerTime, HeaderBackfill, HeaderResync:
			continue
		case headerType:
			structured = bytes.HasPrefix(headers[i].Value, structuredType)
		}
		write([]byte(headers[i].Key))
		write(headers[i].Value)
	}
	if structured {
		value = withoutPosition(value)
	}
	write(value)
	return h.Sum64()
}

// withoutPosition drops from a structured event what follows from the commit.
func withoutPosition(value []byte) []byte {
	var document map[string]json.RawMessage
	if value == nil || json.Unmarshal(value, &document) != nil {
		return value
	}
	delete(document, "sequence")
	delete(document, "time")
	text, err := json.Marshal(document)
	if err != nil {
		return value
	}
	return text
}
