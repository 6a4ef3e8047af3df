package cdc

import (
	"errors"
	"fmt"
	"time"
)

// streamLost ends reading. What was received completely is still published:
// fencing keeps that safe without the slot, and rows before an undecodable one
// would otherwise never get through.
func (r *Relay) streamLost(err error, eff *Effects, now time.Time) {
	problem := AsProblem(err)
	r.attached = false
	if r.phase == PhaseStreaming {
		r.endReading(problem, eff, now)
		return
	}
	if r.phase != PhaseDraining && r.phase != PhaseClosing {
		r.fail(problem, eff)
	}
}

// endReading lets what was received completely be published before both sides
// are closed. A halt does not: what the database says is in doubt.
func (r *Relay) endReading(problem *Problem, eff *Effects, now time.Time) {
	if problem != nil && problem.Treatment == Halt {
		r.fail(problem, eff)
		return
	}
	r.phase, r.ending, r.drainBy = PhaseDraining, problem, now.Add(r.cfg.DrainTimeout)
}

func (r *Relay) endDrain(eff *Effects, now time.Time) {
	if r.attached {
		r.status(eff, now)
	}
	r.close(eff, r.ending)
}

func (r *Relay) stop(eff *Effects, now time.Time) {
	if r.stopping {
		return
	}
	r.stopping = true
	r.moveTo(StateStopping, nil, eff, now)
	switch r.phase {
	case PhaseStreaming:
		r.endReading(nil, eff, now)
	case PhaseDraining, PhaseClosing:
	default:
		r.close(eff, nil)
	}
}

// fail closes both sides and remembers why.
func (r *Relay) fail(problem *Problem, eff *Effects) {
	if errors.Is(problem, ErrTransactionTimeout) {
		r.limits, r.eased = r.limits.Halved(), 0
	}
	r.close(eff, problem)
}

func (r *Relay) close(eff *Effects, problem *Problem) {
	r.phase, r.busy, r.ending = PhaseClosing, true, problem
	eff.Action, eff.Batch, eff.Topic = ActionClose, nil, ""
}

func (r *Relay) closed(eff *Effects, now time.Time) {
	r.life = life{}
	r.advised, r.doubted = false, false
	problem := r.ending
	if problem != nil && problem.Treatment == Undecodable {
		problem = r.judgeUndecodable(problem)
	}
	switch {
	case problem != nil && problem.Treatment == Halt:
		r.phase = PhaseFinished
		r.moveTo(StateHalted, problem, eff, now)
		eff.Finished, eff.Problem = true, problem
	case r.stopping:
		r.phase = PhaseFinished
		eff.Finished = true
	case problem == nil: // --once is through
		r.stopping = true
		r.moveTo(StateStopping, nil, eff, now)
		r.phase = PhaseFinished
		eff.Finished = true
	default:
		r.retry(problem, eff, now)
	}
}

func (r *Relay) retry(problem *Problem, eff *Effects, now time.Time) {
	n := r.failures.note(problem, r.recordedPosition())
	r.phase = PhaseWaiting
	r.wakeAt = now.Add(r.jitter(backoff(n)))
	state := StateRetrying
	if n >= stalledAfter {
		state = StateStalled
	}
	r.moveTo(state, problem, eff, now)
}

// judgeUndecodable halts when the same point of the WAL was tried often enough.
func (r *Relay) judgeUndecodable(problem *Problem) *Problem {
	if r.undecodable.note(problem, r.recordedPosition()) < stalledAfter {
		return problem
	}
	stuck := *problem
	stuck.Treatment, stuck.Reason = Halt, HaltStuck
	stuck.Why = fmt.Sprintf("%s; tried %d times at position %s", problem.Why, stalledAfter, r.recordedPosition())
	return &stuck
}
