package simulation

type coordinatorState uint8

const (
	empty coordinatorState = iota
	ongoing
	prepared // decided, markers are being written
	complete
)

// coordinator is the transaction coordinator's view of one transactional id.
type coordinator struct {
	epoch  int16
	state  coordinatorState
	commit bool  // how the newest transaction was decided
	txn    int32 // the newest transaction
}

type answerKind uint8

const (
	later   answerKind = iota // CONCURRENT_TRANSACTIONS: asked again by the client
	granted                   // and the epoch that holds from now on
	refused
)

// initProducer fences every earlier epoch of the id, and aborts what it has
// begun; it is granted when everything earlier is decided and marked.
func (w *World) initProducer(r *request) answerKind {
	c := &w.kafka.ids[r.id]
	switch c.state {
	case ongoing:
		c.epoch++
		w.decide(r.id, false)
		return later
	case prepared:
		return later
	}
	c.epoch++
	if r.publisher != w.newestPublisher[r.id] {
		w.rare(RareLateInit)
	}
	return granted
}

// endTxn commits. Under transactions v1 nothing tells a late copy from the end
// of the next transaction (KAFKA-17754); v2 raises the epoch at every end.
func (w *World) endTxn(r *request) answerKind {
	c := &w.kafka.ids[r.id]
	current := r.epoch == c.epoch
	if w.plan.v2 && !current && r.epoch == c.epoch-1 && c.commit && c.state != ongoing && c.state != empty {
		if c.state == prepared {
			return later
		}
		return granted
	}
	switch {
	case !current:
		w.rare(RareZombieRefused)
		if r.again && !w.plan.v2 {
			w.rare(RareDoubledEndRefused)
		}
		return refused
	case c.state == ongoing:
		w.decide(r.id, true)
		if w.plan.v2 {
			c.epoch++
		}
		return granted
	case c.state == prepared && c.commit:
		return later
	case c.state == complete && c.commit:
		return granted
	}
	return refused
}

// produce appends, once the coordinator has verified the epoch (KIP-890).
func (w *World) produce(r *request) answerKind {
	c := &w.kafka.ids[r.id]
	if r.epoch != c.epoch {
		w.rare(RareZombieRefused)
		return refused
	}
	if c.state == prepared {
		return later
	}
	producer := &w.kafka.parts[r.part].producers[r.id]
	if producer.epoch != r.epoch {
		producer.epoch, producer.next = r.epoch, 0
	}
	switch {
	case r.sequence < producer.next:
		return granted // a copy
	case r.sequence > producer.next:
		return refused
	}
	if c.state != ongoing {
		c.state = ongoing
		c.txn = int32(len(w.kafka.txns))
		w.kafka.txns = append(w.kafka.txns, kafkaTxn{id: r.id, incarnation: r.incarnation, replica: r.replica})
	}
	producer.next++
	w.appendTo(r, c.txn)
	return granted
}

// decide writes the outcome; markers follow.
func (w *World) decide(id uint8, commit bool) {
	c := &w.kafka.ids[id]
	txn := &w.kafka.txns[c.txn]
	c.state, c.commit = prepared, commit
	w.kafka.unmarked = append(w.kafka.unmarked, c.txn)
	txn.outcome = aborted
	if commit {
		txn.outcome = committed
	}
	if w.tracing {
		w.log("kafka: transaction %d of id %d decided, commit %t, %d records, position %s", c.txn, id, commit, txn.records, describePosition(txn.position))
	}
	if txn.unknown {
		w.countUnknown(txn)
	}
	if commit {
		w.checkCommitted(txn, c.txn)
	}
}

func (w *World) countUnknown(txn *kafkaTxn) {
	if txn.outcome == committed {
		w.rare(RareUnknownCommitted)
	} else {
		w.rare(RareUnknownAborted)
	}
}

// timeOut aborts a transaction that ran too long.
func (w *World) timeOut(id uint8) bool {
	c := &w.kafka.ids[id]
	if c.state != ongoing {
		return false
	}
	c.epoch++
	w.decide(id, false)
	return true
}
