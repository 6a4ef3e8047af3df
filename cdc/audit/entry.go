package audit

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// The kinds of entries; a row sorts before the records of its id.
const (
	kindRow    = 1
	kindRecord = 2
	kindParked = 3
)

const (
	flagUnroutable  = 1 << iota // a row that cannot become a record by the rules
	flagBackfilled              // a record that backfill or resync published
	flagOtherSource             // a record that names another source
)

// entry is what is kept of a row or a record while they are sorted by id.
type entry struct {
	id        ID
	kind      uint8
	topic     uint16 // index in the topic table
	partition int32  // where it is; of a row, where it should be
	offset    int64
	flags     uint8
	key       uint64 // hash; 0: no key
	content   uint64 // hash of key, value and headers
	commit    int64  // microseconds since 1970; 0: not known
	xid       cdc.XID
	command   uint32
}

// entryBytes is the encoded size. The bytes sort by id, kind, topic, partition
// and offset.
const entryBytes = 16 + 1 + 2 + 4 + 8 + 1 + 8 + 8 + 8 + 4 + 4

func (e *entry) encode() []byte {
	b := make([]byte, 0, entryBytes)
	b = append(b, e.id[:]...)
	b = append(b, e.kind)
	b = binary.BigEndian.AppendUint16(b, e.topic)
	b = binary.BigEndian.AppendUint32(b, uint32(e.partition))
	b = binary.BigEndian.AppendUint64(b, uint64(e.offset))
	b = append(b, e.flags)
	b = binary.BigEndian.AppendUint64(b, e.key)
	b = binary.BigEndian.AppendUint64(b, e.content)
	b = binary.BigEndian.AppendUint64(b, uint64(e.commit))
	b = binary.BigEndian.AppendUint32(b, uint32(e.xid))
	return binary.BigEndian.AppendUint32(b, e.command)
}

func decodeEntry(b []byte) (e entry) {
	copy(e.id[:], b)
	e.kind = b[16]
	e.topic = binary.BigEndian.Uint16(b[17:])
	e.partition = int32(binary.BigEndian.Uint32(b[19:]))
	e.offset = int64(binary.BigEndian.Uint64(b[23:]))
	e.flags = b[31]
	e.key = binary.BigEndian.Uint64(b[32:])
	e.content = binary.BigEndian.Uint64(b[40:])
	e.commit = int64(binary.BigEndian.Uint64(b[48:]))
	e.xid = cdc.XID(binary.BigEndian.Uint32(b[56:]))
	e.command = binary.BigEndian.Uint32(b[60:])
	return e
}

// orderEntry is what is kept of a row with its record while they are sorted by
// key and offset.
type orderEntry struct {
	key       uint64
	topic     uint16
	partition int32
	offset    int64
	commit    int64
	xid       cdc.XID
	command   uint32
	id        ID
}

const orderBytes = 8 + 2 + 4 + 8 + 8 + 4 + 4 + 16

func (e *orderEntry) encode() []byte {
	b := make([]byte, 0, orderBytes)
	b = binary.BigEndian.AppendUint64(b, e.key)
	b = binary.BigEndian.AppendUint16(b, e.topic)
	b = binary.BigEndian.AppendUint32(b, uint32(e.partition))
	b = binary.BigEndian.AppendUint64(b, uint64(e.offset))
	b = binary.BigEndian.AppendUint64(b, uint64(e.commit))
	b = binary.BigEndian.AppendUint32(b, uint32(e.xid))
	b = binary.BigEndian.AppendUint32(b, e.command)
	return append(b, e.id[:]...)
}

func decodeOrderEntry(b []byte) (e orderEntry) {
	e.key = binary.BigEndian.Uint64(b)
	e.topic = binary.BigEndian.Uint16(b[8:])
	e.partition = int32(binary.BigEndian.Uint32(b[10:]))
	e.offset = int64(binary.BigEndian.Uint64(b[14:]))
	e.commit = int64(binary.BigEndian.Uint64(b[22:]))
	e.xid = cdc.XID(binary.BigEndian.Uint32(b[30:]))
	e.command = binary.BigEndian.Uint32(b[34:])
	copy(e.id[:], b[38:])
	return e
}

// topicTable numbers the topics.
type topicTable struct {
	list   []topicCount
	byName map[cdc.Topic]uint16
}

type topicCount struct {
	topic         cdc.Topic
	partitions    int32 // 0: it does not exist
	rows, records int64
}

// index returns the topic's number; a new topic is looked up first.
func (t *topicTable) index(ctx context.Context, records Records, topic cdc.Topic) (uint16, error) {
	if i, ok := t.byName[topic]; ok {
		return i, nil
	}
	if len(t.list) > math.MaxUint16 {
		return 0, fmt.Errorf("rows route to more than %d topics: audit smaller ranges", math.MaxUint16)
	}
	n, err := records.Partitions(ctx, topic)
	if err != nil {
		return 0, err
	}
	if t.byName == nil {
		t.byName = map[cdc.Topic]uint16{}
	}
	i := uint16(len(t.list))
	t.byName[topic] = i
	t.list = append(t.list, topicCount{topic: topic, partitions: n})
	return i, nil
}

func (t *topicTable) existing() []cdc.Topic {
	var topics []cdc.Topic
	for _, known := range t.list {
		if known.partitions > 0 {
			topics = append(topics, known.topic)
		}
	}
	return topics
}
