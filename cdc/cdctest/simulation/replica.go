package simulation

import (
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

type process uint8

const (
	dead process = iota
	running
	paused
)

// replica is one process: the real relay, and stand-ins for the goroutine that
// owns the stream and for the worker.
type replica struct {
	index int8
	name  string
	state process
	relay *cdc.Relay
	ids   cdc.TransactionalIDs

	conn      *connection // the client's end; nil: none
	publisher publisher

	action   cdc.Action // with the worker
	topic    cdc.Topic
	attached *connection // performed, and not yet given to the relay
	answer   cdc.Input
	answered bool
	stale    bool // a cancelled action's answer lies before that of Close
	staleIn  cdc.Input
	failed   bool // a status could not be written
	lostTold bool // the relay knows that the stream ended

	// What this life has done, for the checks.
	opened, factsRead bool
	halted            bool
	stopAsked         bool
	relayState        cdc.State
	witness           cdc.LastRow
	witnessArmed      bool
	serial            uint32
	inTx              cdc.LSN
	resumedInside     bool
	seen              cdc.PublicationIdentity // by the facts, as the two below
	walEnd            cdc.LSN
	switched          bool

	message cdc.Message
}

var (
	errDown   = &cdc.Problem{What: "the server is not there"}
	errStream = &cdc.Problem{What: "the stream ended"}
	errNotOur = &cdc.Problem{What: "the slot is not ours"}
	errGuard  = &cdc.Problem{Treatment: cdc.Halt, Reason: cdc.HaltStreamChanged, What: "the publication was altered"}
)

// launch starts the process anew.
func (w *World) launch(r *replica) {
	if w.plan.reconfigures && w.pick(3) == 2 {
		r.ids = w.pickIDs()
	}
	*r = replica{index: r.index, name: r.name, state: running, ids: r.ids}
	r.relay = cdc.NewRelay(cdc.RelayConfig{
		Mode: cdc.ExactlyOnce, Limits: w.plan.limits, Router: w, DrainTimeout: w.plan.drainTimeout, Seed: uint64(w.launched),
		Identity: cdc.Identity{Slot: "s", TransactionalIDs: r.ids, Host: r.name},
	}, w.now)
	w.launched++
	if w.tracing {
		w.log("%s: started, ids %s.0 to %d", r.name, r.ids.Prefix, r.ids.Ring-1)
	}
}

// kill is kill -9: both connections end, whatever is under way stays so.
func (w *World) kill(r *replica) {
	if w.tracing {
		w.log("%s: killed", r.name)
	}
	w.leave(r, false)
	r.publisher.close(w)
	r.state = dead
}

// leave ends the client's side of the stream.
func (w *World) leave(r *replica, orderly bool) {
	if r.conn != nil {
		r.conn.hangUp(orderly)
		r.conn = nil
	}
	if r.attached != nil {
		r.attached.hangUp(orderly)
		r.attached = nil
	}
}

// loop is one turn of the goroutine that owns the stream; false: it waits.
func (w *World) loop(r *replica) bool {
	switch {
	case r.failed && r.conn != nil:
		r.failed, r.lostTold = false, true
		w.step(r, cdc.Input{Kind: cdc.InputStreamLost, Err: errStream})
	case r.stale:
		r.stale = false
		w.step(r, r.staleIn)
	case r.answered:
		w.takeAnswer(r)
	case r.conn != nil && !r.lostTold && r.relay.Reading():
		return w.receive(r)
	default:
		return false
	}
	return true
}

func (w *World) takeAnswer(r *replica) {
	in := r.answer
	r.answered, r.action, r.answer = false, cdc.ActionNone, cdc.Input{}
	switch in.Kind {
	case cdc.InputAttached:
		r.conn, r.attached = r.attached, nil
		r.lostTold, r.failed, r.opened, r.factsRead = false, false, false, false
	case cdc.InputOpened:
		r.opened = in.Err == nil
	case cdc.InputFacts:
		r.factsRead = in.Err == nil
		if r.factsRead {
			w.noteFacts(r, &in.Source)
		}
	case cdc.InputClosed:
		r.opened, r.factsRead = false, false
	}
	w.step(r, in)
}

// noteFacts keeps what the rare states and the checks of a life need.
func (w *World) noteFacts(r *replica, facts *cdc.SourceFacts) {
	r.witnessArmed = false
	found := r.publisher.found
	r.seen, r.walEnd = facts.Publication.PublicationIdentity, facts.WALEnd
	r.switched = len(facts.Lineage) > len(found.Lineage)
	if last := found.LastRow; last != nil && facts.Slot != nil && facts.Slot.ConfirmedFlush <= last.CommitLSN {
		r.witness, r.witnessArmed = *last, true
	}
	r.resumedInside = found.LastRow != nil && !found.Complete && found.Host != r.name
}

// receive hands the next message to the relay, or the end of the stream.
func (w *World) receive(r *replica) bool {
	c := r.conn
	switch {
	case c.altered:
		r.lostTold = true
		w.step(r, cdc.Input{Kind: cdc.InputStreamLost, Err: errGuard})
		return true
	case c.downN > 0:
		m := &r.message
		w.message(c, m)
		if w.tracing {
			w.log("%s: receives %s", r.name, describeMessage(m))
		}
		w.watch(r, m)
		w.step(r, cdc.Input{Kind: cdc.InputMessage, Message: m})
		return true
	case c.broken || !c.serverOpen:
		r.lostTold = true
		w.step(r, cdc.Input{Kind: cdc.InputStreamLost, Err: errStream})
		return true
	}
	return false
}

// watch counts the rare states that show in the stream.
func (w *World) watch(r *replica, m *cdc.Message) {
	switch m.Kind {
	case cdc.MessageBegin:
		r.inTx, r.serial = m.CommitLSN, 0
	case cdc.MessageInsert:
		r.serial++
		if r.inTx != r.witness.CommitLSN || r.serial != r.witness.Serial || !r.witnessArmed {
			return
		}
		if string(m.Row.EventID) == r.witness.EventID {
			w.rare(RareWitnessConfirmed)
			if r.resumedInside {
				w.rare(RareTakeoverInside)
			}
		} else {
			w.rare(RareWitnessCaught)
		}
		r.witnessArmed = false
	}
}

// step gives the relay one input and does what it asks for.
func (w *World) step(r *replica, in cdc.Input) {
	eff := r.relay.Step(in, w.now)
	if w.tracing {
		w.log("%s: %s -> %s", r.name, describeInput(&in), describeEffects(&eff))
	}
	if eff.Status && r.conn != nil {
		w.checkAcknowledged(r, r.conn, eff.Confirm)
		if (r.conn.broken || !r.conn.serverOpen) && !w.calm && w.pick(2) == 1 {
			r.failed = true
		}
		w.acknowledge(r.conn, eff.Confirm)
	}
	if eff.Action != cdc.ActionNone {
		w.checkAction(r, &eff)
		if w.violation != nil {
			return
		}
		w.command(r, &eff)
	}
	if eff.Transition != nil {
		w.transition(r, eff.Transition)
	}
	if eff.Finished {
		w.finished(r, eff.Problem)
	}
}

func (w *World) transition(r *replica, t *cdc.Transition) {
	if t.To == cdc.StateStreaming {
		w.checkStreaming(r)
		if r.relayState == cdc.StateStandby {
			w.rare(RareStandbyTookOver)
		}
	}
	r.relayState = t.To
}

func (w *World) finished(r *replica, problem *cdc.Problem) {
	r.state = dead
	r.publisher.close(w)
	if problem != nil {
		r.halted = true
		w.checkHalt(r, problem)
	}
}

// command gives the worker an action; Close cancels the one under way.
func (w *World) command(r *replica, eff *cdc.Effects) {
	if eff.Action == cdc.ActionClose {
		r.stale = r.action != cdc.ActionNone && !w.calm && w.pick(2) == 1
		if r.stale {
			r.staleIn = cdc.Input{Kind: answerOf(r.action), Err: errGaveUp}
		}
		w.leave(r, w.calm || w.pick(4) != 3)
		r.failed = false
		r.answered = false
	}
	r.action, r.topic = eff.Action, eff.Topic
	switch eff.Action {
	case cdc.ActionOpen:
		w.openPublisher(r)
	case cdc.ActionPublish:
		r.publisher.publish(eff.Batch)
	}
}

func answerOf(action cdc.Action) cdc.InputKind {
	switch action {
	case cdc.ActionInspect:
		return cdc.InputInspected
	case cdc.ActionAdvise:
		return cdc.InputAdvised
	case cdc.ActionOpen:
		return cdc.InputOpened
	case cdc.ActionFacts:
		return cdc.InputFacts
	case cdc.ActionTopic:
		return cdc.InputTopic
	case cdc.ActionPublish:
		return cdc.InputPublished
	}
	return cdc.InputTick
}

// work lets the worker go one step on with its action; false: it waits.
func (w *World) work(r *replica) bool {
	if r.answered || r.action == cdc.ActionNone {
		return false
	}
	var err error
	in := cdc.Input{Kind: answerOf(r.action)}
	switch r.action {
	case cdc.ActionInspect:
		in.Source, err = w.inspect()
	case cdc.ActionAdvise:
		in.Kafka = cdc.KafkaFacts{ClusterID: "k", Record: w.kafka.newestRead}
	case cdc.ActionAttach:
		in.Kind, in.StatusInterval = cdc.InputAttached, 5*time.Second
		err = w.attachFor(r)
	case cdc.ActionOpen:
		done, moved := r.publisher.opening(w)
		if !done {
			return moved
		}
		in.Kafka = cdc.KafkaFacts{ClusterID: "k", Record: r.publisher.found, Pins: w.kafka.pinsRead, Topics: w.topics}
	case cdc.ActionFacts:
		in.Source, err = w.factsOf(r.conn)
	case cdc.ActionTopic:
		in.Topic = w.topics[r.topic]
	case cdc.ActionPublish:
		done, moved, publishErr := r.publisher.publishing(w)
		if !done {
			return moved
		}
		if err = publishErr; err != nil {
			r.publisher.close(w)
		} else if r.lostTold {
			w.rare(RareDrained)
		}
	case cdc.ActionClose:
		in.Kind = cdc.InputClosed
		r.publisher.close(w)
	}
	in.Err = err
	r.answer, r.answered = in, true
	return true
}

func (w *World) inspect() (cdc.SourceFacts, error) {
	if !w.pg.up || w.pg.shutdown {
		return cdc.SourceFacts{}, errDown
	}
	return w.facts(false), nil
}

func (w *World) attachFor(r *replica) error {
	switch {
	case !w.pg.up || w.pg.shutdown || !w.pg.slot.exists:
		return errDown
	case w.pg.slot.owner != nil:
		return cdc.ErrSlotActive
	}
	r.attached = w.attach()
	return nil
}

// factsOf is Stream.Facts: from the same server, and only while the slot is ours.
func (w *World) factsOf(c *connection) (cdc.SourceFacts, error) {
	if !w.pg.up || !c.serverOpen || c.broken {
		return cdc.SourceFacts{}, errNotOur
	}
	c.guarded = true
	w.pg.nextXID++ // the guard takes one, and rolls it back
	c.from = cdc.XID8(w.pg.nextXID)
	return w.facts(true), nil
}

// giveUp is the worker's action running into its time limit.
func (w *World) giveUp(r *replica) bool {
	p := &r.publisher
	if r.answered || r.action != cdc.ActionOpen && r.action != cdc.ActionPublish {
		return false
	}
	if r.action == cdc.ActionPublish && w.model.TakesUnknownAsAborted && (p.stage == ending || p.stage == flushing) {
		p.stage, p.asked = refencing, true
		w.newestPublisher[p.id] = p.number
		w.transmit(request{kind: requestInit, id: p.id, replica: p.replica, publisher: p.number})
		return true
	}
	if w.tracing {
		w.log("%s: gives up", r.name)
	}
	in := cdc.Input{Kind: answerOf(r.action), Err: errGaveUp}
	if r.action == cdc.ActionPublish && !w.calm && w.pick(4) == 3 {
		in.Err = errTimeout
		w.halved = true
		w.rare(RareLimitsHalved)
	}
	p.close(w)
	r.answer, r.answered = in, true
	return true
}
