package ledger

import (
	"context"
	"fmt"
	"time"
)

// A prepared transaction outlives its connection and a crash of the server, so
// each is followed until it is decided: one left behind would hold its locks
// and the slots' horizon for ever.

// prepare ends the open transaction by PREPARE TRANSACTION, then decides it.
func (w *writer) prepare(ctx context.Context, xid string, p *plan) error {
	gid := "ledger-" + p.first().id.String()
	tag, err := w.conn.Exec(ctx, "PREPARE TRANSACTION '"+gid+"'")
	prepared := err == nil && tag.String() == "PREPARE TRANSACTION"
	if err != nil {
		w.Counts.Unknown.Add(1)
		w.disconnect(ctx)
		if prepared, err = w.isPrepared(ctx, xid, gid); err != nil {
			return err
		}
	}
	if !prepared {
		w.Counts.RolledBack.Add(1)
		return nil
	}
	sleep(ctx, p.hesitates)
	if p.rollback {
		w.Counts.RolledBack.Add(1)
		return w.decide(ctx, "ROLLBACK PREPARED", gid)
	}
	if err := w.decide(ctx, "COMMIT PREPARED", gid); err != nil {
		return err
	}
	w.Counts.Prepared.Add(1)
	w.committed(p)
	return nil
}

// decide repeats the command until the prepared transaction is gone. It is gone
// from the view only after the decision took effect.
func (w *writer) decide(ctx context.Context, command, gid string) error {
	for w.conn != nil || w.reconnect(ctx) {
		_, err := w.conn.Exec(ctx, command+" '"+gid+"'")
		if err == nil {
			return nil
		}
		// The answer was lost, or the backend that got the command is still at it.
		w.disconnect(ctx)
		if exists, err := w.isPrepared(ctx, "", gid); err != nil || !exists {
			return err
		}
		if !sleep(ctx, 20*time.Millisecond) {
			break
		}
	}
	return fmt.Errorf("%w: %s %s", errOutcome, command, gid)
}

// isPrepared looks for a prepared transaction, once no backend with the xid
// runs any more that could still prepare it; xid "" is nobody's.
func (w *writer) isPrepared(ctx context.Context, xid, gid string) (bool, error) {
	if xid == "" {
		xid = "0"
	}
	for w.conn != nil || w.reconnect(ctx) {
		var running, prepared bool
		err := w.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid = $1::text::xid8::xid AND pid <> pg_backend_pid())", xid).Scan(&running)
		if err == nil && !running {
			err = w.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1)", gid).Scan(&prepared)
			if err == nil {
				return prepared, nil
			}
		}
		if err != nil {
			w.cfg.Logger.Debug("writer cannot look for its prepared transaction", "writer", w.index, "cause", err)
			w.disconnect(ctx)
		}
		if !sleep(ctx, 20*time.Millisecond) {
			break
		}
	}
	return false, fmt.Errorf("%w: PREPARE TRANSACTION %s", errOutcome, gid)
}
