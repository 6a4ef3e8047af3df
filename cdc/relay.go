package cdc

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Relay makes every decision of one replica as a pure step function: an input
// and the time go in, effects come out. It owns no goroutine, socket, clock or
// logger, so a simulation can drive it through any history. The zero value is
// not usable; NewRelay makes one.
//
// Its life is a circle: inspect, advise, attach, open, facts, stream, close.
// Every error of either side leads to close and to the start of the circle;
// there is no second way to recover.
type Relay struct {
	cfg    RelayConfig
	random *rand.Rand

	phase Phase
	busy  bool // an action is with the worker and has not been answered
	state State
	cause *Problem
	since time.Time

	wakeAt   time.Time // waiting: when the next start begins
	failures failures
	// undecodable counts apart: a stream that ends at once is seen in different
	// ways, as an error of the stream or as facts that no longer fit, and a
	// standby may have its turn in between.
	undecodable failures
	setup       *Problem // found by inspect; judged when it is known whether anything was ever recorded
	advised     bool     // identity was judged in this start
	doubted     bool     // no position was found once in this start
	limits      BatchLimits
	eased       int  // transactions committed since the limits were last changed
	carried     bool // Kafka has taken rows from this process
	stopping    bool // orderly stop was asked for
	ending      *Problem
	drainBy     time.Time

	source SourceFacts
	kafka  KafkaFacts
	topics map[Topic]TopicFacts

	clock      clockOffset
	caughtUpAt time.Time // on the server's clock: nothing committed before it is owed

	life
}

// life is the state of one connection; it is made anew at every attach.
type life struct {
	attached       bool
	statusInterval time.Duration
	nextStatus     time.Time
	lastStatus     time.Time
	stream         streaming
}

// RelayConfig is what decisions depend on.
type RelayConfig struct {
	Mode     Mode
	Identity Identity
	Limits   BatchLimits
	Router   Router
	Park     Parker // nil: a bad row halts
	// Once stops in good order when everything committed before the start is in Kafka.
	Once bool
	// DrainTimeout bounds how long complete rows may still be published after
	// the stream ended or a stop was asked for; default 20 s.
	DrainTimeout time.Duration
	// Seed makes the jitter of a simulation repeatable.
	Seed uint64
}

// Identity is what the relay writes into its position records about itself.
type Identity struct {
	Slot             string
	TransactionalIDs TransactionalIDs
	RelayVersion     string
	Host             string
}

// Times of the relay's own rhythm; delivery.md says why each.
const (
	standbyPoll      = 200 * time.Millisecond
	idleRecordEvery  = 10 * time.Second
	quietRecordEvery = 24 * time.Hour
	progressStatus   = time.Second            // an acknowledgement follows progress within this
	shutdownReply    = 100 * time.Millisecond // answers without progress are not given more often
	shutdownDrain    = 2 * time.Second        // the server waits for us meanwhile; what is owed comes again
	backoffFirst     = 100 * time.Millisecond
	backoffMax       = 2 * time.Second
	stalledAfter     = 10  // the same failure at the same position
	easeAfter        = 100 // transactions, until halved limits are doubled again
)

// NewRelay returns a relay that starts at its first Tick.
func NewRelay(cfg RelayConfig, now time.Time) *Relay {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 20 * time.Second
	}
	return &Relay{
		cfg: cfg, limits: cfg.Limits, state: StateStarting, since: now, wakeAt: now,
		random: rand.New(rand.NewPCG(cfg.Seed, 0)),
	}
}

// Step takes one input at time now and returns what is to be done about it.
func (r *Relay) Step(in Input, now time.Time) Effects {
	var eff Effects
	if r.phase == PhaseFinished {
		return eff
	}
	r.clock.follow(now)
	switch in.Kind {
	case InputTick:
	case InputStop:
		r.stop(&eff, now)
	case InputMessage:
		if r.phase == PhaseStreaming {
			r.receive(in.Message, &eff, now)
		}
	case InputStreamLost:
		r.streamLost(in.Err, &eff, now)
	case InputClosed:
		r.busy = false
		r.closed(&eff, now)
	default:
		r.answer(in, &eff, now)
	}
	r.advance(&eff, now)
	return eff
}

// answer takes the worker's answer to the action of the current phase.
func (r *Relay) answer(in Input, eff *Effects, now time.Time) {
	if r.phase == PhaseClosing {
		return // its action was cancelled by Close
	}
	r.busy = false
	switch in.Kind {
	case InputInspected:
		r.inspected(in, eff, now)
	case InputAdvised:
		r.adviseAnswered(in, eff, now)
	case InputAttached:
		r.attachAnswered(in, eff, now)
	case InputOpened:
		r.opened(in, eff, now)
	case InputFacts:
		r.factsRead(in, eff, now)
	case InputTopic:
		r.topicRead(in, eff, now)
	case InputPublished:
		r.published(in.Err, eff, now)
	}
}

// advance does what is due by time or has become possible.
func (r *Relay) advance(eff *Effects, now time.Time) {
	if r.phase == PhaseWaiting && !now.Before(r.wakeAt) && !r.stopping {
		r.act(eff, PhaseInspecting, ActionInspect)
	}
	if r.phase == PhaseStreaming || r.phase == PhaseDraining {
		r.settle(eff, now)
	}
	if r.attached && r.phase != PhaseClosing && !eff.Status && !now.Before(r.nextStatus) {
		r.status(eff, now)
	}
}

func (r *Relay) act(eff *Effects, phase Phase, action Action) {
	r.phase, r.busy = phase, true
	eff.Action = action
}

func (r *Relay) inspected(in Input, eff *Effects, now time.Time) {
	r.setup = nil
	if in.Err != nil {
		problem := AsProblem(in.Err)
		if problem.Treatment != Setup {
			r.fail(problem, eff)
			return
		}
		r.setup = problem
	}
	r.source = in.Source
	if !r.advised || r.setup != nil || r.source.Slot == nil {
		r.act(eff, PhaseAdvising, ActionAdvise)
		return
	}
	r.attachOrStandBy(eff, now)
}

func (r *Relay) adviseAnswered(in Input, eff *Effects, now time.Time) {
	if in.Err != nil {
		r.fail(r.judgeSetup(AsProblem(in.Err), nil), eff)
		return
	}
	r.kafka = in.Kafka
	if r.setup != nil {
		r.fail(r.judgeSetup(r.setup, in.Kafka.Record), eff)
		return
	}
	problem := r.judgeIdentity(in.Kafka)
	if problem != nil && problem.Reason == HaltPositionMissing && !r.doubted {
		// Nobody was fenced for this look, so an init that ends at this moment may
		// show its last record only to the next one.
		r.doubted = true
		r.phase, r.wakeAt = PhaseWaiting, now.Add(r.jitter(standbyPoll))
		return
	}
	if problem != nil {
		r.fail(problem, eff)
		return
	}
	r.advised = true
	r.attachOrStandBy(eff, now)
}

// judgeIdentity finds what needs no slot to be proved. A changed stream is
// found again by Decide, which comes too late where the change itself makes the
// server end every stream at once.
func (r *Relay) judgeIdentity(kafka KafkaFacts) *Problem {
	if problem := DecideIdentity(kafka, r.source, r.cfg.Mode); problem != nil || r.cfg.Mode != ExactlyOnce {
		return problem
	}
	return checkStream(kafka.Record, r.source)
}

// judgeSetup decides what a setup problem means: nothing was ever recorded, so
// it is a first start and a person must act; or the relay ran before, then it
// is the halt that it names, or something that comes back.
func (r *Relay) judgeSetup(problem *Problem, record *PositionRecord) *Problem {
	if problem.Treatment != Setup {
		return problem
	}
	judged := *problem
	switch {
	case (record == nil || record.LastRow == nil) && !r.carried:
		judged.Treatment, judged.Reason = Halt, HaltSetup
	case problem.Reason != "":
		judged.Treatment = Halt
	default:
		judged.Treatment = Retry
	}
	return &judged
}

func (r *Relay) attachOrStandBy(eff *Effects, now time.Time) {
	if r.source.Slot.Active {
		r.standBy(eff, now)
		return
	}
	r.act(eff, PhaseAttaching, ActionAttach)
}

// standBy waits for the slot; looking over SQL spares the server's log the
// error that START_REPLICATION would write there five times a second.
func (r *Relay) standBy(eff *Effects, now time.Time) {
	r.failures.reset()
	r.phase = PhaseWaiting
	r.wakeAt = now.Add(r.jitter(standbyPoll))
	r.moveTo(StateStandby, nil, eff, now)
}

func (r *Relay) attachAnswered(in Input, eff *Effects, now time.Time) {
	if errors.Is(in.Err, ErrSlotActive) {
		r.standBy(eff, now)
		return
	}
	if in.Err != nil {
		r.fail(AsProblem(in.Err), eff)
		return
	}
	r.life = life{attached: true, statusInterval: in.StatusInterval, nextStatus: now}
	r.act(eff, PhaseOpening, ActionOpen)
}

func (r *Relay) opened(in Input, eff *Effects, now time.Time) {
	if in.Err != nil {
		r.fail(r.judgeSetup(AsProblem(in.Err), r.kafka.Record), eff)
		return
	}
	r.kafka = in.Kafka
	r.act(eff, PhaseFacts, ActionFacts)
}

func (r *Relay) factsRead(in Input, eff *Effects, now time.Time) {
	released := errors.Is(in.Err, ErrSlotReleased)
	if in.Err != nil && !released {
		r.fail(r.judgeSetup(AsProblem(in.Err), r.kafka.Record), eff)
		return
	}
	r.source = in.Source
	resume, problem := Decide(r.kafka, r.source, r.cfg.Mode)
	if problem != nil && released {
		problem = AsProblem(in.Err)
	}
	if problem != nil {
		r.fail(problem, eff)
		return
	}
	r.topics = PinnedTopics(r.kafka.Topics, r.kafka.Pins)
	r.stream = newStreaming(r, resume, now)
	r.phase = PhaseStreaming
	r.moveTo(StateStreaming, nil, eff, now)
	r.status(eff, now)
}

// status sends the mark that may be acknowledged now.
func (r *Relay) status(eff *Effects, now time.Time) {
	eff.Status = true
	if r.phase == PhaseStreaming || r.phase == PhaseDraining {
		eff.Confirm = r.stream.nextConfirmed()
		r.stream.progress.acceptConfirmed(eff.Confirm)
		eff.ReplyRequested = r.cfg.Once || now.Sub(r.stream.heardAt) > r.statusInterval
	}
	r.lastStatus = now
	r.nextStatus = now.Add(r.statusInterval)
}

func (r *Relay) statusBy(at time.Time) {
	if at.Before(r.nextStatus) {
		r.nextStatus = at
	}
}

func (r *Relay) recordedPosition() Position {
	if r.kafka.Record == nil {
		return Position{}
	}
	return r.kafka.Record.Position()
}

func (r *Relay) moveTo(state State, cause *Problem, eff *Effects, now time.Time) {
	if r.state == state && cause == nil {
		return
	}
	eff.Transition = &Transition{From: r.state, To: state, Cause: cause, Failures: r.failures.count}
	if r.state != state {
		r.since = now
	}
	r.state, r.cause = state, cause
}

// jitter spreads replicas apart: between 80 % and 120 % of d.
func (r *Relay) jitter(d time.Duration) time.Duration {
	return d*8/10 + time.Duration(r.random.Int64N(int64(d)*4/10+1))
}
