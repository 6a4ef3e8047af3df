package simulation

import (
	"fmt"
	"runtime/debug"

	"github.com/cdc-relay/cdc-relay/cdc"
)

type eventKind uint8

// The events that a schedule is made of.
const (
	eventReplica   eventKind = iota // a replica's worker or loop goes one step on
	eventSend                       // the walsender sends
	eventDeliver                    // a request reaches Kafka
	eventMark                       // a marker is written
	eventStatus                     // a status reaches the server
	eventTick                       // the clock jumps to a replica's next wake
	eventWrite                      // a transaction with rows commits
	eventForeign                    // WAL of others
	eventKeepalive                  // the walsender sends one
	eventPersist                    // the slot is written to disk, or to the standby
	eventStart                      // the server starts
	eventLaunch                     // a process is started that ended
	eventResume                     // SIGCONT
	eventGuard                      // the guard looks at the publication
	eventDropServer
	eventBreak
	eventKill
	eventPause
	eventStop
	eventCrash
	eventShutdown
	eventFailover
	eventFailoverLoss
	eventTimeOut
	eventAgain
	eventGiveUp
	eventLose
	eventAlter
	eventCopy
	eventRestore
	eventAdvanceSlot
	eventDropSlot
)

// chaosSteps is how many events happen before faults stop.
const chaosSteps = 300

// Run runs the schedule of a seed and returns its violation, or nil.
func (w *World) Run(seed uint64) *Violation {
	w.seed(seed)
	return w.run()
}

// Replay runs the schedule of a tape.
func (w *World) Replay(tape Tape) *Violation {
	w.play(tape)
	return w.run()
}

func (w *World) run() *Violation {
	w.guarded(w.reset)
	for w.violation == nil && w.more() {
		w.beginStep()
		w.guarded(w.chaosStep)
	}
	if w.violation == nil {
		w.guarded(w.settle)
	}
	w.stats.Schedules++
	w.stats.Steps += w.steps
	return w.violation
}

func (w *World) more() bool {
	if w.replay != nil {
		return w.left()
	}
	return w.steps < chaosSteps
}

// guarded turns a panic into a violation.
func (w *World) guarded(f func()) {
	defer func() {
		if cause := recover(); cause != nil {
			w.violate(CheckNoPanic, "%v", cause)
			w.violation.Stack = string(debug.Stack())
		}
	}()
	f()
}

// chaosStep makes one event happen; some of those chosen cannot happen now.
func (w *World) chaosStep() {
	w.steps++
	w.now = w.now.Add(stepDuration)
	for range 6 {
		if w.happen(w.plan.table[w.pick(len(w.plan.table))]) {
			return
		}
	}
}

// happen says whether the event changed anything.
func (w *World) happen(kind eventKind) bool {
	switch kind {
	case eventReplica:
		return w.turn(w.pickReplica())
	case eventSend:
		return w.send()
	case eventDeliver:
		return len(w.network) > 0 && w.deliver(w.pick(len(w.network)))
	case eventMark:
		return w.mark()
	case eventStatus:
		return w.takeStatus()
	case eventTick:
		return w.tick(w.pickReplica())
	case eventWrite:
		return w.write(1 + w.pick(w.plan.maxRows))
	case eventForeign:
		return w.write(0)
	case eventKeepalive:
		return w.keepalive()
	case eventPersist:
		return w.persist()
	case eventStart:
		return w.start()
	case eventGuard:
		return w.guard()
	case eventDropServer:
		return w.dropByServer()
	case eventBreak:
		return w.breakConnection()
	case eventLaunch, eventResume, eventKill, eventPause, eventStop:
		return w.signal(kind, w.pickReplica())
	}
	return w.disaster(kind)
}

func (w *World) disaster(kind eventKind) bool {
	switch kind {
	case eventCrash:
		return w.crash()
	case eventShutdown:
		done := w.pg.up && !w.pg.shutdown
		w.pg.shutdown = w.pg.up
		return done
	case eventFailover:
		return w.failover(0)
	case eventFailoverLoss:
		return w.failover(1 + w.pick(3))
	case eventTimeOut:
		return w.timeOut(uint8(w.pick(ids)))
	case eventAgain:
		return w.pickReplica().publisher.again(w)
	case eventGiveUp:
		r := w.pickReplica()
		return r.state != dead && w.giveUp(r)
	case eventLose:
		if len(w.network) == 0 {
			return false
		}
		w.lose(w.pick(len(w.network)))
		return true
	case eventAlter:
		return w.alter()
	case eventCopy:
		return w.takeCopy()
	case eventRestore:
		return w.restore()
	case eventAdvanceSlot:
		return w.advanceSlot()
	case eventDropSlot:
		return w.dropSlot()
	}
	panic(fmt.Sprintf("event %d", kind))
}

func (w *World) pickReplica() *replica { return &w.replicas[w.pick(w.plan.replicas)] }

// turn lets one of a replica's two goroutines go on.
func (w *World) turn(r *replica) bool {
	if r.state != running {
		return false
	}
	if w.pick(2) == 0 {
		return w.work(r) || w.loop(r)
	}
	return w.loop(r) || w.work(r)
}

// tick lets the time pass that a replica wants to wait.
func (w *World) tick(r *replica) bool {
	if r.state != running || r.answered {
		return false
	}
	if wake := r.relay.NextWake(w.now); wake.After(w.now) {
		w.now = wake
	}
	w.step(r, cdc.Input{Kind: cdc.InputTick})
	return true
}

func (w *World) signal(kind eventKind, r *replica) bool {
	switch kind {
	case eventLaunch:
		if r.state != dead {
			return false
		}
		w.launch(r)
		return true
	case eventResume:
		return w.move(r, paused, running)
	case eventPause:
		return w.move(r, running, paused)
	case eventKill:
		if r.state == dead {
			return false
		}
		w.kill(r)
		return true
	}
	if r.state != running || r.stopAsked {
		return false
	}
	r.stopAsked = true
	w.step(r, cdc.Input{Kind: cdc.InputStop})
	return true
}

func (w *World) move(r *replica, from, to process) bool {
	if r.state != from {
		return false
	}
	r.state = to
	if w.tracing {
		w.log("%s: %s", r.name, map[process]string{paused: "paused", running: "resumed"}[to])
	}
	return true
}

// guard lets the streams see that the publication is not what it was, and else
// what has ended.
func (w *World) guard() bool {
	seen := false
	for i := range w.replicas {
		c := w.replicas[i].conn
		if c != nil && c.guarded && c.serverOpen && w.pg.publication != w.publication && !c.altered {
			c.altered, seen = true, true
		}
		if c != nil && c.guarded && c.serverOpen && w.pg.publication == w.publication {
			w.lookAtFloor(c)
		}
	}
	return seen
}
