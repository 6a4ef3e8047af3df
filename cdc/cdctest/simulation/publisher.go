package simulation

import (
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

type stage uint8

const (
	idle stage = iota
	fencing
	readHigh   // ask for the high watermark
	readStable // ask for the last stable offset and read up to it
	producing
	flushing
	ending
	ended
	refencing // only in a broken model
)

// publisher follows the protocol of package cdc/kafka: fence every id, read
// the position to a proved end, one transaction at a time, every promise
// checked, whatever is not a success closes all.
type publisher struct {
	number      int32 // 0: none
	replica     int8
	incarnation int32
	v2          bool
	model       *Model

	ring    [ids]uint8 // the configured ids
	ringN   int
	usable  [ids]uint8
	usableN int
	turn    int

	stage     stage
	todo      uint16 // ids to be fenced
	fenced    uint16
	asked     bool
	epochs    [ids]int16
	sequences [ids][parts]int32
	high      int
	found     *cdc.PositionRecord
	early     *cdc.PositionRecord // only in a broken model: read before fencing

	id     uint8
	batch  *cdc.Batch
	need   uint16 // partitions
	acked  uint16
	ends   int // EndTxn requests sent
	failed bool
}

func idOf(prefix string, i int) uint8 {
	if prefix == "b" {
		return uint8(ids/2 + i)
	}
	return uint8(i)
}

// openPublisher begins start step 5.
func (w *World) openPublisher(r *replica) {
	w.publishers++
	p := &r.publisher
	*p = publisher{number: w.publishers, replica: r.index, incarnation: r.conn.incarnation, v2: w.plan.v2, model: &w.model, stage: fencing}
	for i := range r.ids.Ring {
		id := idOf(r.ids.Prefix, i)
		p.ring[i] = id
		p.todo |= 1 << id
	}
	p.ringN = r.ids.Ring
	p.early = w.kafka.newestRead
}

// opening goes one step on; done when the read is proved complete.
func (p *publisher) opening(w *World) (done, moved bool) {
	switch p.stage {
	case fencing:
		if p.todo&^p.fenced == 0 {
			p.stage = readHigh
			return false, true
		}
		if p.asked {
			return false, false
		}
		p.id = lowest(p.todo &^ p.fenced)
		w.newestPublisher[p.id] = p.number
		w.transmit(request{kind: requestInit, id: p.id, replica: p.replica, publisher: p.number})
		p.asked = true
	case readHigh:
		p.high = len(w.kafka.parts[positionPart].log)
		p.stage = readStable
	case readStable:
		return p.readStable(w)
	}
	return false, true
}

func (p *publisher) readStable(w *World) (done, moved bool) {
	stable := w.kafka.parts[positionPart].stable
	p.found = w.kafka.newestRead
	if !w.calm && w.pick(8) == 7 { // the broker serves less than there is, and falls silent
		stable -= 1 + w.pick(3)
		p.found = w.kafka.newestBelow(stable)
	}
	named := p.found.TransactionalIDs
	own := p.ringSet()
	p.usableN = 0
	for i := range named.Ring {
		id := idOf(named.Prefix, i)
		p.todo |= 1 << id
		if own&(1<<id) != 0 {
			p.usable[p.usableN] = id
			p.usableN++
		} else if p.fenced&(1<<id) == 0 {
			w.rare(RareFormerFenced)
		}
	}
	switch {
	case p.todo&^p.fenced != 0 && !p.model.FencesOwnIDsOnly:
		p.stage = fencing
		return false, true
	case stable < p.high && !p.model.GivesUpEarly:
		w.rare(RareUndecidedAtOpen)
		p.high = len(w.kafka.parts[positionPart].log) // and then again the last stable offset
		return false, false
	}
	if p.usableN == 0 {
		p.usable[0], p.usableN = idOf(named.Prefix, 0), 1
	}
	if p.model.FencesOwnIDsOnly {
		p.usable, p.usableN = p.ring, p.ringN
	}
	if p.model.ReadsBeforeFencing {
		p.found = p.early
	}
	p.stage = idle
	return true, true
}

func (p *publisher) ringSet() (set uint16) {
	for _, id := range p.ring[:p.ringN] {
		set |= 1 << id
	}
	return set
}

func lowest(set uint16) uint8 {
	for i := range uint8(16) {
		if set&(1<<i) != 0 {
			return i
		}
	}
	panic("empty set of ids")
}

// publish begins a transaction.
func (p *publisher) publish(batch *cdc.Batch) {
	p.batch, p.need, p.acked, p.ends, p.failed = batch, 1<<positionPart, 0, 0, false
	for i := range batch.Records {
		p.need |= 1 << flatPart(batch.Records[i].Topic, batch.Records[i].Partition)
	}
	p.id = p.usable[p.turn%p.usableN]
	p.turn++
	p.stage = producing
}

// publishing goes one step on; done with a nil error means committed.
func (p *publisher) publishing(w *World) (done, moved bool, err error) {
	if p.failed {
		return true, true, errRefused
	}
	switch p.stage {
	case producing:
		for part := range uint8(parts) {
			if p.need&(1<<part) != 0 {
				w.transmit(p.produceRequest(part))
				p.sequences[p.id][part]++
			}
		}
		p.stage = flushing
	case flushing:
		if p.acked != p.need && (!p.model.SkipsPromises || p.acked == 0) {
			return false, false, nil
		}
		p.ends = 1
		w.transmit(p.request(requestEnd, 0))
		p.stage = ending
	case ended:
		if p.ends > 1 && !p.v2 && !p.model.TrustsDoubledEnd {
			w.rare(RareDoubledEnd)
			return true, true, errDoubled
		}
		p.usable, p.usableN, p.stage = p.ring, p.ringN, idle
		p.ends = 0
		return true, true, nil
	default:
		return false, false, nil
	}
	return false, true, nil
}

func (p *publisher) request(kind requestKind, part uint8) request {
	return request{kind: kind, id: p.id, part: part, replica: p.replica, epoch: p.epochs[p.id], publisher: p.number, incarnation: p.incarnation, batch: p.batch}
}

func (p *publisher) produceRequest(part uint8) request {
	r := p.request(requestProduce, part)
	r.sequence = p.sequences[p.id][part]
	return r
}

// answer takes what a broker said to this publisher's request.
func (p *publisher) answer(w *World, r *request, answer answerKind) {
	if p.number != r.publisher {
		return // of an earlier one, which is closed
	}
	switch r.kind {
	case requestInit:
		if (p.stage == fencing || p.stage == refencing) && p.asked && p.id == r.id {
			p.asked = false
			p.fenced |= 1 << r.id
			p.epochs[r.id] = w.kafka.ids[r.id].epoch
			p.sequences[r.id] = [parts]int32{}
			if p.stage == refencing {
				p.turn--
				p.publish(p.batch)
			}
		}
	case requestProduce:
		if p.stage == flushing && r.batch == p.batch {
			p.failed = p.failed || answer == refused
			p.acked |= 1 << r.part
		}
	case requestEnd:
		if p.stage != ending || r.batch != p.batch {
			return
		}
		if answer == refused {
			p.failed = true
			return
		}
		p.stage = ended
		if p.v2 {
			p.epochs[p.id] = w.kafka.ids[p.id].epoch
			p.sequences[p.id] = [parts]int32{}
		}
	}
}

// again sends a request that has no answer yet a second time.
func (p *publisher) again(w *World) bool {
	switch {
	case p.number == 0:
		return false
	case p.stage == fencing && p.asked:
		w.transmit(request{kind: requestInit, id: p.id, replica: p.replica, publisher: p.number, again: true})
	case p.stage == flushing && p.acked != p.need:
		part := lowest(p.need &^ p.acked)
		r := p.produceRequest(part)
		r.sequence--
		r.again = true
		w.transmit(r)
	case p.stage == ending:
		p.ends++
		r := p.request(requestEnd, 0)
		r.again = true
		w.transmit(r)
	default:
		return false
	}
	if w.tracing {
		w.log("publisher %d sends again", p.number)
	}
	return true
}

// close drops everything that is under way; the outcome may be unknown.
func (p *publisher) close(w *World) {
	if p.ends > 0 {
		txn := &w.kafka.txns[w.kafka.ids[p.id].txn]
		if txn.position == p.batch.Position {
			txn.unknown = true
			if txn.outcome != open {
				w.countUnknown(txn)
			}
		}
	}
	*p = publisher{}
}

var (
	errRefused = &cdc.Problem{What: "the broker refused"}
	errDoubled = &cdc.Problem{What: "EndTxn was sent twice"}
	errGaveUp  = &cdc.Problem{What: "no answer in time"}
	errTimeout = fmt.Errorf("no answer in time: %w", cdc.ErrTransactionTimeout)
)
