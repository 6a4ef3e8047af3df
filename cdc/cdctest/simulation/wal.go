package simulation

import (
	"encoding/binary"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// maxEvents bounds the rows of one schedule.
const maxEvents = 1024

// event is one row of the outbox; its index is its id.
type event struct {
	key     uint8 // index of keys
	part    uint8 // flat partition, from 1
	tx      int32
	serial  uint32
	ordinal int32 // place in its partition's part of S
	phantom bool  // its timeline was abandoned
	decided bool  // in a committed Kafka transaction
	visible bool  // to read_committed consumers
}

// dbTransaction is a committed transaction of the database. It stays known when
// its timeline is abandoned; history says what the server has now.
type dbTransaction struct {
	xid       cdc.XID
	newestXID cdc.XID // that was given out by then
	commitLSN cdc.LSN
	endLSN    cdc.LSN
	first     int32 // event
	rows      int32
	undecided int32
	fits      bool // into the limits of one batch
	kafkaTxn  int32
	inKafka   int32 // rows in kafkaTxn
}

// key is where rows go: the topic, and what its partition is chosen by.
type key struct {
	topic     cdc.Topic
	placement []byte
	part      uint8
}

// Data partitions are numbered through, the position topic's is 0.
const (
	positionPart   = 0
	parts          = 4
	topicZeroParts = 2
)

// fixed is what never changes and is shared by all worlds.
type fixed struct {
	ids    [maxEvents][]byte
	keys   []key
	topics map[cdc.Topic]cdc.TopicFacts
}

func newFixed() *fixed {
	f := &fixed{topics: map[cdc.Topic]cdc.TopicFacts{
		"t0": {TopicPin: cdc.TopicPin{Topic: "t0", ID: "id-t0", Partitions: topicZeroParts}, MaxMessageBytes: 1 << 20},
		"t1": {TopicPin: cdc.TopicPin{Topic: "t1", ID: "id-t1", Partitions: 1}, MaxMessageBytes: 1 << 20},
	}}
	for i := range f.ids {
		f.ids[i] = binary.BigEndian.AppendUint32(nil, uint32(i))
	}
	for i := range 4 {
		placement := []byte{byte('a' + i)}
		f.keys = append(f.keys, key{topic: "t0", placement: placement, part: flatPart("t0", cdc.PartitionFor(placement, topicZeroParts))})
	}
	f.keys = append(f.keys, key{topic: "t1", placement: []byte("e"), part: flatPart("t1", 0)})
	return f
}

func flatPart(topic cdc.Topic, partition int32) uint8 {
	if topic == "t0" {
		return uint8(1 + partition)
	}
	return uint8(1 + topicZeroParts + partition)
}

// Route implements cdc.Router: the record's value is the event's id.
func (w *World) Route(row *cdc.Row) (cdc.Record, error) {
	k := &w.keys[w.events[eventOf(row.EventID)].key]
	return cdc.Record{Topic: k.topic, Placement: k.placement, Key: k.placement, Value: row.EventID, Timestamp: row.CommitTime}, nil
}

func eventOf(id []byte) int32 { return int32(binary.BigEndian.Uint32(id)) }

const lsnUnit = 0x10

// write commits a transaction with this many outbox rows; 0 is foreign WAL.
func (w *World) write(rows int) bool {
	if !w.pg.up || w.pg.shutdown || len(w.events)+rows > maxEvents {
		return false
	}
	xid := w.nextXID(1 + w.pick(2))
	commit := w.pg.walEnd + cdc.LSN(w.pick(3)*lsnUnit)
	end := commit + cdc.LSN((1+w.pick(3))*lsnUnit)
	id := int32(len(w.txs))
	tx := dbTransaction{
		xid: xid, newestXID: w.pg.nextXID, commitLSN: commit, endLSN: end,
		first: int32(len(w.events)), rows: int32(rows), undecided: int32(rows), kafkaTxn: -1,
	}
	touched := 0
	for i := range rows {
		k := uint8(w.pick(len(w.keys)))
		part := w.keys[k].part
		w.events = append(w.events, event{key: k, part: part, tx: id, serial: uint32(i + 1), ordinal: w.sLen[part]})
		w.sLen[part]++
		touched |= 1 << part
	}
	tx.fits = rows <= w.plan.limits.MaxRows && rows*recordBytes <= w.plan.limits.MaxBytes && bits(touched) <= w.plan.limits.MaxPartitions
	w.txs = append(w.txs, tx)
	w.pg.history = append(w.pg.history, id)
	w.pg.walEnd = end
	if w.tracing {
		w.log("postgres: commit xid %d at %s, end %s, events %d to %d", tx.xid, commit, end, tx.first, int(tx.first)+rows-1)
	}
	return true
}

// nextXID gives ids out and returns the one that commits. Where two are given
// out the other stays open for a while, and commits after younger ones.
func (w *World) nextXID(given int) cdc.XID {
	p := &w.pg
	p.nextXID += cdc.XID(given)
	xid := p.nextXID
	switch {
	case p.open == 0 && given > 1:
		p.open = xid - 1
	case p.open != 0 && w.steps%4 == 0:
		xid, p.open = p.open, 0
	}
	return xid
}

// recordBytes is the size of every record: overhead, key and id.
const recordBytes = 64 + 1 + 4

func bits(set int) (n int) {
	for ; set != 0; set &= set - 1 {
		n++
	}
	return n
}

// abandon forgets the newest transactions: the server goes on at walEnd with
// the first keep of them.
func (w *World) abandon(keep int, walEnd cdc.LSN, nextXID cdc.XID) {
	for _, id := range w.pg.history[keep:] {
		tx := &w.txs[id]
		for e := tx.first; e < tx.first+tx.rows; e++ {
			ev := &w.events[e]
			ev.phantom = true
			w.sLen[ev.part]--
			if ev.decided {
				w.phantoms++
			}
		}
	}
	w.pg.history = w.pg.history[:keep]
	w.owed = min(w.owed, keep)
	w.pg.walEnd, w.pg.nextXID, w.pg.open = walEnd, nextXID, 0
}
