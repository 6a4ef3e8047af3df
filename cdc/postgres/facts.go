package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Facts implements cdc.Stream.
func (s *stream) Facts(ctx context.Context) (cdc.SourceFacts, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	conn, err := s.cfg.connect(ctx, connectOptions{replication: true, to: s.conn})
	if err != nil {
		return cdc.SourceFacts{}, fmt.Errorf("read the facts: %w", err)
	}
	defer conn.close()
	id, err := conn.identify(ctx)
	if err != nil {
		return cdc.SourceFacts{}, err
	}
	l, err := s.cfg.look(ctx, conn)
	if err != nil {
		return cdc.SourceFacts{}, err
	}
	facts := l.facts(s.cfg, id, conn.version)
	held := s.sameServer(id, l)
	if held != nil && !errors.Is(held, cdc.ErrSlotReleased) {
		return facts, held
	}
	if facts.Lineage, err = conn.lineage(ctx, id.timeline); err != nil {
		return facts, err
	}
	if held != nil {
		return facts, held // what the server sent before is still to be read, and why it ended
	}
	if err := l.problems(s.cfg, conn); err != nil {
		return facts, err
	}
	return facts, s.startGuard(l)
}

// sameServer proves that the facts are of the server, and the time, of the lease.
func (s *stream) sameServer(id identity, l *look) error {
	var why string
	var kind error
	switch {
	case id.systemID != s.id.systemID:
		why = fmt.Sprintf("the stream comes from system %s, the second connection went to system %s", s.id.systemID, id.systemID)
	case id.timeline != s.id.timeline:
		why = fmt.Sprintf("the timeline went from %d to %d", s.id.timeline, id.timeline)
	case l.Slot == nil:
		why = "the slot is gone"
	case uint32(l.Slot.ActivePID) != s.pid:
		why = fmt.Sprintf("the slot's active_pid is %d, our walsender's pid is %d", l.Slot.ActivePID, s.pid)
		if l.Slot.ActivePID == 0 {
			kind = cdc.ErrSlotReleased
		}
	default:
		return nil
	}
	return &cdc.Problem{
		What: fmt.Sprintf("slot %q is no longer held by this stream", s.cfg.Slot), Why: why,
		Fix: "nothing, after a failover; else make sure that postgres.dsn leads to one server only",
		Err: kind,
	}
}

// startGuard starts the guard once; a later call gives it nothing new to know.
func (s *stream) startGuard(base *look) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("replication stream is closed")
	}
	if s.guard == nil {
		s.guard = &guard{stream: s, base: base, good: base.WALEnd, done: make(chan struct{})}
		go s.guard.run(s.ctx)
	}
	return nil
}
