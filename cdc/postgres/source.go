package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// closeTimeout bounds the ending of any connection.
const closeTimeout = time.Second

// Source looks at the server and attaches to its slot. Its methods belong to one
// goroutine at a time.
type Source struct {
	cfg Config
	// conn is kept between looks; nil or broken: the next look connects. It is a
	// replication connection because only that one answers IDENTIFY_SYSTEM.
	conn *connection
	id   identity // of conn
}

var _ cdc.Source = (*Source)(nil)

// New checks the config, all of it, and connects to nothing.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Inspect implements cdc.Source.
func (s *Source) Inspect(ctx context.Context) (cdc.SourceFacts, error) {
	l, err := s.look(ctx)
	if err != nil {
		return cdc.SourceFacts{}, err
	}
	return l.facts(&s.cfg, s.id, s.conn.version), l.problems(&s.cfg, s.conn)
}

// look uses the kept connection, and a new one if that turns out to be broken.
func (s *Source) look(ctx context.Context) (*look, error) {
	if s.conn.usable() {
		l, err := s.cfg.look(ctx, s.conn)
		if err == nil || ctx.Err() != nil {
			return l, err
		}
		s.Close()
	}
	conn, err := s.cfg.connect(ctx, connectOptions{replication: true})
	if err != nil {
		return nil, err
	}
	if s.id, err = conn.identify(ctx); err != nil {
		conn.close()
		return nil, err
	}
	l, err := s.cfg.look(ctx, conn)
	if err != nil {
		conn.close()
		return nil, err
	}
	s.conn = conn
	return l, nil
}

// Attach implements cdc.Source.
func (s *Source) Attach(ctx context.Context) (cdc.Stream, error) {
	conn, err := s.cfg.connect(ctx, connectOptions{replication: true, socket: smallWindow})
	if err != nil {
		return nil, fmt.Errorf("attach to slot %q: %w", s.cfg.Slot, err)
	}
	stream, err := attach(ctx, &s.cfg, conn)
	if err != nil {
		conn.close()
		return nil, fmt.Errorf("attach to slot %q: %w", s.cfg.Slot, s.attachError(ctx, err))
	}
	// While streaming nobody inspects; a walsender less.
	s.Close()
	return stream, nil
}

// attachError looks again for why the server refused: its SQLSTATE alone does
// not tell a lost slot from a server in recovery.
func (s *Source) attachError(ctx context.Context, err error) error {
	if errors.Is(err, cdc.ErrSlotActive) || ctx.Err() != nil {
		return err
	}
	l, lookErr := s.look(ctx)
	if lookErr != nil {
		return err
	}
	if found := l.problems(&s.cfg, s.conn); found != nil {
		return found
	}
	if p := l.lostSlot(&s.cfg); p != nil {
		return p
	}
	return err
}

// Close implements cdc.Source.
func (s *Source) Close() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}
