package cdc

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Runner is the thin shell around Relay: it gives the pure steps a clock, a
// stream and a worker, and does what they ask for.
//
// Two goroutines live while Run does. The one that called Run owns the stream:
// it alone reads from it and writes statuses. The worker owns the Kafka
// transaction and does everything else that may block, so a Kafka that hangs
// never silences the status.
type Runner struct {
	cfg Config

	mu     sync.Mutex // guards the field below
	status Status
}

// New returns a Runner, or all problems of the configuration at once.
func New(cfg Config) (*Runner, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Runner{cfg: cfg, status: Status{State: StateStarting, Mode: cfg.Mode, Since: time.Now(), MovedAt: time.Now()}}, nil
}

// Status returns the newest picture; safe from any goroutine.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run relays until ctx ends or a person is needed. It returns nil after an
// orderly stop and the *Problem after a halt; nothing that it started outlives
// it, and slot and transactional ids are released. Call it once.
func (r *Runner) Run(ctx context.Context) error {
	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	defer endLife()
	l := &loop{
		Runner: r,
		relay: NewRelay(RelayConfig{
			Mode: r.cfg.Mode, Identity: r.cfg.Identity, Limits: r.cfg.Limits, Router: r.cfg.Router, Park: r.cfg.Park,
			Once: r.cfg.Once, DrainTimeout: r.cfg.DrainTimeout, Seed: rand.Uint64(),
		}, time.Now()),
		worker: newWorker(r.cfg),
		timer:  time.NewTimer(time.Hour),
		log:    transitionLog{logger: r.cfg.Logger},
	}
	l.life = life
	defer context.AfterFunc(ctx, func() { l.stopAsked.Store(true); l.worker.wakeReader() })()
	var workerDone sync.WaitGroup
	workerDone.Go(l.worker.run)
	problem := l.run()
	close(l.worker.commands)
	workerDone.Wait()
	if problem == nil {
		return nil
	}
	if r.cfg.StayUp {
		l.stayUp(ctx)
	}
	return problem
}

// loop is the state of the goroutine that owns the stream.
type loop struct {
	*Runner
	relay  *Relay
	worker *worker
	timer  *time.Timer
	log    transitionLog
	life   context.Context
	stream Stream // nil while none is attached

	stopAsked    atomic.Bool
	stopTold     bool
	cancelAction context.CancelFunc
	failed       error // of the stream, to be told to the relay
	handedAt     time.Time
	batch        *Batch // with the publisher
	pictureAt    time.Time
	pictureDue   bool // something changed since the last picture
}

// pictureEvery bounds how old the picture behind Status may be while messages
// stream in; taking one per message would cost more than the decoding.
const pictureEvery = time.Millisecond

func (l *loop) run() *Problem {
	now := time.Now()
	for {
		in := l.next(now)
		now = time.Now()
		if in.Kind == InputPublished {
			l.observePublished(in.Err, now)
		}
		eff := l.relay.Step(in, now)
		l.pictureDue = true
		if in.Kind == InputStreamLost {
			l.dropStream()
		}
		if l.perform(eff, now) {
			return eff.Problem
		}
	}
}

// next waits for the next input. The picture is taken before every wait. now is
// that of the step before: the clock is read once per message.
func (l *loop) next(now time.Time) Input {
	switch {
	case l.failed != nil:
		err := l.failed
		l.failed = nil
		return Input{Kind: InputStreamLost, Err: err}
	case len(l.worker.answers) > 0:
		return l.accept(<-l.worker.answers)
	case l.stopAsked.Load() && !l.stopTold:
		l.stopTold = true
		return Input{Kind: InputStop}
	}
	if l.pictureDue && now.Sub(l.pictureAt) >= pictureEvery {
		l.takePicture(now)
	}
	wake := l.relay.NextWake(now)
	if l.stream != nil && l.relay.Reading() {
		return l.receive(wake)
	}
	if l.pictureDue {
		l.takePicture(now)
	}
	var lost <-chan struct{}
	if l.stream != nil {
		lost = l.stream.Lost()
	}
	l.timer.Reset(time.Until(wake))
	select {
	case a := <-l.worker.answers:
		return l.accept(a)
	case <-lost:
		return l.receive(wake)
	case <-l.worker.wake:
	case <-l.timer.C:
	}
	return Input{Kind: InputTick}
}

func (l *loop) receive(wake time.Time) Input {
	if due := l.pictureAt.Add(pictureEvery); l.pictureDue && due.Before(wake) {
		wake = due
	}
	m, err := l.stream.Receive(wake)
	switch {
	case err != nil:
		return Input{Kind: InputStreamLost, Err: err}
	case m == nil:
		return Input{Kind: InputTick}
	}
	Failpoint("stream.received")
	return Input{Kind: InputMessage, Message: m}
}

// accept takes the worker's answer; a stream becomes this goroutine's own.
func (l *loop) accept(a answer) Input {
	if a.stream != nil {
		if l.relay.phase == PhaseClosing {
			_ = a.stream.Close() // attached too late; its error has no reader
			return Input{Kind: InputTick}
		}
		l.stream = a.stream
		l.worker.setReader(a.stream)
	}
	return a.input
}

// perform does what a step asked for and says whether the relay is done.
func (l *loop) perform(eff Effects, now time.Time) bool {
	if eff.Status && l.stream != nil {
		Failpoint("status.before")
		if err := l.stream.Status(eff.Confirm, eff.ReplyRequested); err != nil {
			l.failed = err
		}
		Failpoint("status.after")
	}
	switch eff.Action {
	case ActionNone:
	case ActionClose:
		l.close()
	default:
		l.start(eff, now)
	}
	if t := eff.Transition; t != nil {
		l.log.transition(t, l.relay, now)
		l.cfg.Observer.StateChanged(t.From, t.To, t.Cause)
		if t.Cause != nil {
			l.cfg.Observer.Failed(t.Cause)
		}
	}
	if eff.Finished {
		l.takePicture(now)
	}
	return eff.Finished
}

func (l *loop) start(eff Effects, now time.Time) {
	ctx, cancel := context.WithTimeout(l.life, l.timeout(eff.Action))
	l.cancelAction = cancel
	if eff.Action == ActionPublish {
		l.batch, l.handedAt = eff.Batch, now
	}
	l.worker.commands <- command{ctx: ctx, cancel: cancel, action: eff.Action, topic: eff.Topic, batch: eff.Batch, stream: l.stream}
}

func (l *loop) timeout(action Action) time.Duration {
	switch action {
	case ActionPublish:
		return l.cfg.PublishTimeout
	case ActionInspect, ActionAttach, ActionFacts:
		return 15 * time.Second
	default:
		return 30 * time.Second
	}
}

// close ends both sides in this order: the action under way, the stream (with
// CopyDone, so that the slot is free at once), the Kafka clients.
func (l *loop) close() {
	if l.cancelAction != nil {
		l.cancelAction()
	}
	l.dropStream()
	l.batch = nil
	l.worker.commands <- command{ctx: l.life, cancel: func() {}, action: ActionClose}
}

// dropStream closes the stream, if one is open. One that was lost goes before the
// rest: what it brought may take as long to be published as Kafka is away, and
// meanwhile a server that shuts down would wait for the connection.
func (l *loop) dropStream() {
	if l.stream == nil {
		return
	}
	l.worker.setReader(nil)
	if err := l.stream.Close(); err != nil {
		l.cfg.Logger.Debug("stream closed", "error", err)
	}
	l.stream, l.failed = nil, nil
}

func (l *loop) observePublished(err error, now time.Time) {
	if err == nil && l.batch != nil {
		l.cfg.Observer.Recorded(l.batch, now.Sub(l.handedAt), now)
		if l.cfg.Park != nil {
			l.log.parked(l.batch)
		}
	}
	l.batch = nil
}

func (l *loop) takePicture(now time.Time) {
	status := l.relay.Status(now)
	l.cfg.Observer.Received(l.relay.TakeCounts())
	l.mu.Lock()
	l.status = status
	l.mu.Unlock()
	l.pictureAt, l.pictureDue = now, false
}

// stayUp keeps the picture of the halt fresh until ctx ends.
func (l *loop) stayUp(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.takePicture(now)
		}
	}
}
