package simulation

import "github.com/cdc-relay/cdc-relay/cdc"

// networkCapacity bounds what is under way; beyond it something is lost.
const networkCapacity = 24

type requestKind uint8

const (
	requestInit requestKind = iota
	requestProduce
	requestEnd
)

// request lies in the network until it is delivered or lost; the order in
// which requests arrive is free. That it was sent again makes a second one.
type request struct {
	kind        requestKind
	id          uint8 // transactional id
	part        uint8
	again       bool
	replica     int8
	epoch       int16
	sequence    int32
	publisher   int32
	incarnation int32
	batch       *cdc.Batch
}

func (w *World) transmit(r request) {
	if len(w.network) == networkCapacity {
		w.lose(0)
	}
	w.network = append(w.network, r)
}

func (w *World) lose(i int) {
	last := len(w.network) - 1
	w.network[i] = w.network[last]
	w.network = w.network[:last]
}

// deliver lets one request arrive, and its answer return unless that is lost.
// It says whether anything changed.
func (w *World) deliver(i int) bool {
	r := w.network[i]
	before := len(w.kafka.unmarked)
	var answer answerKind
	switch r.kind {
	case requestInit:
		answer = w.initProducer(&r)
	case requestProduce:
		answer = w.produce(&r)
	case requestEnd:
		answer = w.endTxn(&r)
	}
	if answer == later {
		return len(w.kafka.unmarked) != before
	}
	w.lose(i)
	lost := !w.calm && w.chance(w.plan.lostAnswers)
	if w.tracing {
		w.log("kafka: %s of publisher %d, id %d epoch %d partition %d: granted %t, answer lost %t",
			requestNames[r.kind], r.publisher, r.id, r.epoch, r.part, answer == granted, lost)
	}
	if !lost {
		w.replicas[r.replica].publisher.answer(w, &r, answer)
	}
	return true
}

var requestNames = [...]string{requestInit: "InitProducerId", requestProduce: "Produce", requestEnd: "EndTxn"}
