package simulation

import (
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// calmSteps bounds the time until everything is visible once faults stopped.
const calmSteps = 6000

// settle stops all faults and waits until everything is in Kafka and the slot
// has followed, or every replica has halted.
func (w *World) settle() {
	w.calm = true
	if w.tracing {
		w.log("-- faults stop")
	}
	for i := range w.replicas {
		w.move(&w.replicas[i], paused, running)
	}
	for w.violation == nil && !w.settled() {
		if w.steps > chaosSteps+calmSteps {
			w.violate(CheckLiveness, "%d transactions of %d are wholly in Kafka, slot at %s of %s, %d published rows lost",
				w.owed, len(w.pg.history), w.pg.slot.confirmed, w.pg.walEnd, w.phantoms)
			return
		}
		if !w.round() {
			w.idleRound()
		}
	}
}

// settled says whether nothing is left to be done.
func (w *World) settled() bool {
	halted := true
	for i := range w.replicas[:w.plan.replicas] {
		halted = halted && w.replicas[i].halted
	}
	if halted {
		w.stats.Halted++
		return true
	}
	if w.phantoms > 0 || !w.pg.slot.exists || w.pg.publication != w.publication {
		return false
	}
	for i := range w.kafka.parts {
		if p := &w.kafka.parts[i]; p.stable < len(p.log) {
			return false
		}
	}
	return w.nothingOwed() && w.pg.slot.confirmed >= w.pg.walEnd
}

// counted counts a calm step.
func (w *World) counted(moved bool) bool {
	if moved {
		w.steps++
		w.now = w.now.Add(time.Millisecond)
	}
	return moved && w.violation == nil
}

// round lets everything go on that can; false: all wait.
func (w *World) round() bool {
	from := w.steps
	w.counted(w.start())
	w.counted(w.guard())
	if c := w.pg.slot.owner; c != nil && (c.broken || !c.clientOpen && !c.copyDone) {
		w.counted(w.dropByServer())
	}
	for i := range w.replicas[:w.plan.replicas] {
		r := &w.replicas[i]
		if r.state == dead && !r.halted {
			w.launch(r)
			w.counted(true)
		}
		for range 20 {
			if r.state != running || !w.counted(w.work(r) || w.loop(r)) {
				break
			}
		}
	}
	for i := 0; i < len(w.network); {
		n := len(w.network)
		w.counted(w.deliver(i))
		if len(w.network) >= n {
			i++
		}
	}
	for w.counted(w.mark()) {
	}
	for w.counted(w.takeStatus()) {
	}
	for range downCapacity {
		if !w.counted(w.send()) {
			break
		}
	}
	return w.steps != from
}

// idleRound ends what nobody will answer any more, and lets time pass.
func (w *World) idleRound() {
	w.steps++
	stuck := false
	for i := range w.replicas[:w.plan.replicas] {
		r := &w.replicas[i]
		if r.state != running || r.answered {
			continue
		}
		switch r.action {
		case cdc.ActionPublish:
			stuck = w.giveUp(r) || stuck
		case cdc.ActionOpen:
			if r.publisher.stage == fencing {
				stuck = w.giveUp(r) || stuck
				continue
			}
			for id := range uint8(ids) {
				stuck = w.timeOut(id) || stuck
			}
		}
	}
	if stuck {
		return
	}
	if c := w.pg.slot.owner; c != nil && c.downN == 0 {
		w.keepalive()
	}
	w.jump()
}

// jump moves the clock to the next wake of who holds the slot, or of anybody,
// and lets all replicas see it.
func (w *World) jump() {
	var wake time.Time
	owned := false
	for i := range w.replicas[:w.plan.replicas] {
		r := &w.replicas[i]
		if r.state != running {
			continue
		}
		next := r.relay.NextWake(w.now)
		owns := r.conn != nil && r.conn == w.pg.slot.owner
		if wake.IsZero() || owns || !owned && next.Before(wake) {
			wake = next
		}
		owned = owned || owns
	}
	if wake.After(w.now) {
		w.now = wake
	}
	for i := range w.replicas[:w.plan.replicas] {
		if r := &w.replicas[i]; r.state == running && !r.answered && w.violation == nil {
			w.steps++
			w.step(r, cdc.Input{Kind: cdc.InputTick})
		}
	}
}
