package simulation

import "github.com/cdc-relay/cdc-relay/cdc"

const (
	ids      = 8 // transactional ids: two prefixes of up to four
	perBatch = 8 // more records than any batch of the plan has
)

// entry is one offset of a partition: a row's record, a position record, or
// the marker of a transaction.
type entry struct {
	txn    int32
	event  int32      // -1: none
	batch  *cdc.Batch // its position and pins; nil: none
	marker bool
}

// partition is the log of one partition, read by read_committed consumers.
type partition struct {
	log       []entry
	stable    int   // last stable offset; the high watermark is len(log)
	visible   int32 // records below stable that are committed
	producers [ids]struct {
		epoch int16
		next  int32
	}
}

type outcome uint8

const (
	open outcome = iota
	committed
	aborted
)

// kafkaTxn is one transaction as the coordinator and the logs know it.
type kafkaTxn struct {
	id          uint8 // of the transactional id
	outcome     outcome
	unknown     bool   // its publisher gave up without knowing
	touched     uint16 // partitions
	marked      uint16
	incarnation int32 // of the server whose rows it has
	replica     int8
	records     int
	events      [perBatch]int32
	position    *cdc.PositionRecord // nil: not produced
}

type brokers struct {
	parts      [parts]partition
	ids        [ids]coordinator
	txns       []kafkaTxn
	unmarked   []int32             // decided transactions that lack markers
	newestRead *cdc.PositionRecord // below the last stable offset
	pinsRead   []cdc.TopicPin
}

func (b *brokers) reset(genesis *cdc.PositionRecord) {
	for i := range b.parts {
		clear(b.parts[i].log)
		b.parts[i] = partition{log: b.parts[i].log[:0]}
	}
	b.ids = [ids]coordinator{}
	b.txns = append(b.txns[:0], kafkaTxn{outcome: committed, touched: 1, marked: 1, position: genesis})
	b.unmarked = b.unmarked[:0]
	position := &b.parts[positionPart]
	position.log = append(position.log, entry{event: -1, batch: &cdc.Batch{Position: genesis}}, entry{event: -1, marker: true})
	position.stable, position.visible = 2, 1
	b.newestRead, b.pinsRead = genesis, nil
}

// mark writes one marker of a decided transaction.
func (w *World) mark() bool {
	b := &w.kafka
	if len(b.unmarked) == 0 {
		return false
	}
	i := w.pick(len(b.unmarked))
	number := b.unmarked[i]
	txn := &b.txns[number]
	missing := txn.touched &^ txn.marked
	part := 0
	for skip := w.pick(bits(int(missing))); ; part++ {
		if missing&(1<<part) == 0 {
			continue
		}
		if skip == 0 {
			break
		}
		skip--
	}
	txn.marked |= 1 << part
	p := &b.parts[part]
	p.log = append(p.log, entry{txn: number, event: -1, marker: true})
	// The marker carries the epoch that follows: what is late is refused here too.
	if producer := &p.producers[txn.id]; producer.epoch != b.ids[txn.id].epoch {
		producer.epoch, producer.next = b.ids[txn.id].epoch, 0
	}
	if txn.marked == txn.touched {
		b.unmarked[i] = b.unmarked[len(b.unmarked)-1]
		b.unmarked = b.unmarked[:len(b.unmarked)-1]
		b.ids[txn.id].state = complete
	}
	if w.tracing {
		w.log("kafka: marker of transaction %d on partition %d", number, part)
	}
	w.advanceStable(part)
	return true
}

// advanceStable moves the last stable offset up to the first undecided record,
// and shows what was committed below it to the consumers.
func (w *World) advanceStable(part int) {
	p := &w.kafka.parts[part]
	for p.stable < len(p.log) {
		e := &p.log[p.stable]
		if !e.marker {
			txn := &w.kafka.txns[e.txn]
			if txn.marked&(1<<part) == 0 {
				return
			}
			switch {
			case txn.outcome != committed:
			case part == positionPart:
				w.kafka.newestRead = e.batch.Position
				if e.batch.Pins != nil {
					w.kafka.pinsRead = e.batch.Pins
				}
			default:
				w.checkVisible(part, e.event)
				p.visible++
			}
		}
		p.stable++
	}
}

// appendTo takes a producer's batch into a partition's log.
func (w *World) appendTo(r *request, number int32) {
	txn := &w.kafka.txns[number]
	p := &w.kafka.parts[r.part]
	if txn.touched&(1<<r.part) == 0 {
		txn.touched |= 1 << r.part
	}
	if r.part == positionPart {
		p.log = append(p.log, entry{txn: number, event: -1, batch: r.batch})
		txn.position = r.batch.Position
		return
	}
	for i := range r.batch.Records {
		record := &r.batch.Records[i]
		if flatPart(record.Topic, record.Partition) != r.part {
			continue
		}
		e := eventOf(record.Value)
		p.log = append(p.log, entry{txn: number, event: e})
		if txn.records < perBatch {
			txn.events[txn.records] = e
			txn.records++
		}
	}
}

// newestBelow is the newest committed position record below an offset; the
// first one is always found.
func (b *brokers) newestBelow(offset int) *cdc.PositionRecord {
	log := b.parts[positionPart].log
	for i := offset - 1; i > 0; i-- {
		if e := &log[i]; !e.marker && b.txns[e.txn].outcome == committed {
			return e.batch.Position
		}
	}
	return log[0].batch.Position
}
