package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// discardReader is the reference on the side of PostgreSQL: it receives, and
// nothing more.
func discardReader(w way) reader {
	return reader{name: w.of("discard"), seat: func(ctx context.Context, b *bed, d database) (*seat, error) {
		b.discards++
		slot := fmt.Sprintf("discard_%d", b.discards)
		if err := b.copySlot(ctx, d, slot); err != nil {
			return nil, err
		}
		return &seat{slot: slot, drain: func(ctx context.Context, backlog backlog) (drain, error) {
			return b.discard(ctx, d, slot, w, backlog)
		}}, nil
	}}
}

// discard receives and decodes the backlog in this process.
func (b *bed) discard(ctx context.Context, d database, slot string, w way, backlog backlog) (drain, error) {
	source, err := postgres.New(postgres.Config{
		DSN:  func() (string, error) { return b.dsn(d.name, w), nil },
		Slot: slot, Publication: publication, Table: "public.outbox", AllowInsecure: w.link,
	})
	if err != nil {
		return drain{}, err
	}
	defer source.Close()
	b.take(w)
	watch, cpuBefore := startWatch(), ownCPU()
	stream, err := source.Attach(ctx)
	if err != nil {
		return drain{}, err
	}
	defer stream.Close()
	walsender := b.watchWalsender(ctx, d.name, slot)
	defer walsender.stop()
	received := 0
	statusAt := time.Now().Add(stream.StatusInterval())
	for received < backlog.rows {
		message, err := stream.Receive(statusAt)
		switch {
		case err != nil:
			return drain{}, err
		case ctx.Err() != nil:
			return drain{}, ctx.Err()
		case message == nil:
			if err := stream.Status(0, false); err != nil {
				return drain{}, err
			}
			statusAt = time.Now().Add(stream.StatusInterval())
		case message.Kind == cdc.MessageInsert:
			received++
		case message.Kind == cdc.MessageKeepalive && message.WALEnd >= backlog.end:
			return drain{}, fmt.Errorf("%d rows came, want %d", received, backlog.rows)
		}
	}
	return watch.stop(backlog, ownCPU()-cpuBefore, walsender.cpu()), nil
}
