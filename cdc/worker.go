package cdc

import (
	"context"
	"sync"
)

// worker does everything that may block but for reading the stream: one action
// at a time, in the order given. It alone touches Source, Sink and Publisher.
type worker struct {
	cfg      Config
	commands chan command // capacity 2: an action, and the Close that overtakes its answer
	answers  chan answer  // capacity 2: the worker never waits for the reader

	publisher Publisher // nil while none is open; only touched by run

	wake chan struct{} // capacity 1: wakes a reader that waits without a stream

	mu     sync.Mutex // guards the field below
	reader Stream     // woken when an answer is ready; nil while none is attached
}

func newWorker(cfg Config) *worker {
	return &worker{cfg: cfg, commands: make(chan command, 2), answers: make(chan answer, 2), wake: make(chan struct{}, 1)}
}

type command struct {
	ctx    context.Context
	cancel context.CancelFunc
	action Action
	topic  Topic
	batch  *Batch
	stream Stream // Facts
}

type answer struct {
	input  Input
	stream Stream // Attach
}

func (w *worker) run() {
	for c := range w.commands {
		a := w.perform(c)
		c.cancel()
		w.answers <- a
		w.wakeReader()
	}
}

func (w *worker) perform(c command) answer {
	switch c.action {
	case ActionInspect:
		facts, err := w.cfg.Source.Inspect(c.ctx)
		return answer{input: Input{Kind: InputInspected, Source: facts, Err: err}}
	case ActionAdvise:
		facts, err := w.cfg.Sink.Advise(c.ctx)
		return answer{input: Input{Kind: InputAdvised, Kafka: facts, Err: err}}
	case ActionAttach:
		return w.attach(c)
	case ActionOpen:
		return w.open(c)
	case ActionFacts:
		facts, err := c.stream.Facts(c.ctx)
		Failpoint("facts.read")
		return answer{input: Input{Kind: InputFacts, Source: facts, Err: err}}
	case ActionTopic:
		facts, err := w.publisher.Topic(c.ctx, c.topic)
		return answer{input: Input{Kind: InputTopic, Topic: facts, Err: err}}
	case ActionPublish:
		err := w.publisher.Publish(c.ctx, c.batch)
		Failpoint("publish.answered")
		return answer{input: Input{Kind: InputPublished, Err: err}}
	case ActionClose:
		w.close()
		return answer{input: Input{Kind: InputClosed}}
	}
	panic("unknown action")
}

func (w *worker) attach(c command) answer {
	stream, err := w.cfg.Source.Attach(c.ctx)
	Failpoint("slot.attached")
	if err != nil {
		return answer{input: Input{Kind: InputAttached, Err: err}}
	}
	return answer{stream: stream, input: Input{Kind: InputAttached, StatusInterval: stream.StatusInterval()}}
}

func (w *worker) open(c command) answer {
	publisher, facts, err := w.cfg.Sink.Open(c.ctx)
	Failpoint("kafka.opened")
	if err == nil {
		w.publisher = publisher
	}
	return answer{input: Input{Kind: InputOpened, Kafka: facts, Err: err}}
}

func (w *worker) close() {
	if w.publisher != nil {
		w.publisher.Close()
		w.publisher = nil
	}
	w.cfg.Source.Close()
}

func (w *worker) setReader(stream Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reader = stream
}

// wakeReader makes the goroutine that reads the stream look for answers.
func (w *worker) wakeReader() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader != nil {
		w.reader.Wake()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
