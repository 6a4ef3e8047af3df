package cdc

import (
	"bytes"
	"slices"
	"time"
)

// Topic is the name of a Kafka topic.
type Topic string

// Header is one header of a record; a nil value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// Record is what is produced to Kafka for one row.
type Record struct {
	Topic     Topic
	Partition int32  // set by the relay from Placement and the pinned partition count
	Placement []byte // hashed to choose the partition: the serialized key, or its stand-in when the key is null
	Key       []byte // nil is Kafka's null
	Value     []byte // nil is Kafka's null: a tombstone
	Headers   []Header
	Timestamp time.Time // zero: the relay sets the time of producing, on the server's clock
	Position  Position
	Parked    string // why the row is told of in the parked topic; empty where it is published
}

// Clone returns a record that lends nothing.
func (r *Record) Clone() Record {
	own := *r
	own.Placement, own.Key, own.Value = bytes.Clone(r.Placement), bytes.Clone(r.Key), bytes.Clone(r.Value)
	own.Headers = slices.Clone(r.Headers)
	for i := range own.Headers {
		own.Headers[i].Value = bytes.Clone(own.Headers[i].Value)
	}
	return own
}

// recordOverheadBytes is a generous bound of what Kafka's record format adds
// around key, value and headers (KIP-98, "Message Format").
const recordOverheadBytes = 64

// Bytes bounds the size of the record in a produce request.
func (r *Record) Bytes() int {
	n := recordOverheadBytes + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 10 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}
