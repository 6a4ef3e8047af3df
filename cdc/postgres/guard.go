package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// guard compares publication and table, again and again, with what they were
// when the stream's facts were read. Taking the table out of the publication and
// putting it back, or making the table again, loses rows without a word on the
// stream; only oid and xmin of the catalog rows show it afterwards.
type guard struct {
	stream *stream
	base   *look
	good   cdc.LSN     // WAL end of the last look that found all as it was
	conn   *connection // nil or broken: connect at the next look
	from   cdc.XID8    // given out in this life; 0: not yet
	done   chan struct{}
}

// run looks until the stream is closed or something has changed. It owns conn,
// an ordinary session: it takes no walsender, and is told of a shutdown before
// walsenders are.
func (g *guard) run(ctx context.Context) {
	defer close(g.done)
	defer g.drop()
	for ctx.Err() == nil {
		if problem := g.look(ctx); problem != nil {
			g.stream.fail(problem)
			return
		}
		g.pause(ctx)
	}
}

func (g *guard) drop() {
	if g.conn != nil {
		g.conn.close()
		g.conn = nil
	}
}

// pause waits for the next look, at the open session where there is one, so
// that its end by the server is noticed at once.
func (g *guard) pause(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, g.stream.cfg.GuardInterval)
	defer cancel()
	for g.conn.usable() {
		if err := g.conn.pg.WaitForNotification(ctx); err != nil {
			if ctx.Err() == nil {
				g.drop()
				return // look now: is the server shutting down?
			}
			return
		}
	}
	<-ctx.Done()
}

// look returns a problem that ends the stream. A session that cannot be had is
// none: the stream itself shows whether the server lives.
func (g *guard) look(ctx context.Context) *cdc.Problem {
	l, err := g.lookTwice(ctx)
	if err != nil {
		return g.refused(ctx, err)
	}
	if what := changed(g.base, l); what != "" {
		return g.problem(what, l)
	}
	g.good = l.WALEnd
	if l.Floor == nil || g.tellFloor(ctx, l) {
		return nil
	}
	// The session was lost after the look: the server may be shutting down.
	if _, err := g.lookTwice(ctx); err != nil {
		return g.refused(ctx, err)
	}
	return nil
}

// lookTwice repeats a look that fails once at once: a server that shuts down
// ends the session under it, or while it is made, and says why only to whoever
// connects next.
func (g *guard) lookTwice(ctx context.Context) (*look, error) {
	l, err := g.lookOnce(ctx)
	if err != nil && ctx.Err() == nil {
		l, err = g.lookOnce(ctx)
	}
	return l, err
}

// tellFloor hands over what a good look tells about transactions that had ended:
// their rows went through a publication that nobody has altered. It reports
// whether the session is still there.
func (g *guard) tellFloor(ctx context.Context, l *look) bool {
	if g.from == 0 {
		from, err := g.takeXID(ctx)
		if err != nil {
			g.drop()
			g.stream.cfg.Logger.Debug("guard has no transaction id", "cause", err)
		}
		g.from = from
	}
	g.stream.floor.Store(&cdc.FloorLook{XID: l.Floor.XID, LSN: l.WALPages.EndOfData(l.Floor.LSN), From: g.from})
	return g.conn != nil
}

// takeXID uses up a transaction id. It is rolled back: a commit could wait for a
// synchronous standby.
func (g *guard) takeXID(ctx context.Context) (cdc.XID8, error) {
	ctx, cancel := context.WithTimeout(ctx, max(g.stream.cfg.ConnectTimeout, time.Second))
	defer cancel()
	text, err := g.conn.text(ctx, "take a transaction id", "BEGIN; SELECT pg_catalog.pg_current_xact_id()")
	if err != nil {
		return 0, err
	}
	if _, err := g.conn.query(ctx, "roll back", "ROLLBACK"); err != nil {
		return 0, err
	}
	xid, err := strconv.ParseUint(text, 10, 64)
	return cdc.XID8(xid), err
}

// lookOnce looks, on a new session where there is none; an error drops it.
func (g *guard) lookOnce(ctx context.Context) (*look, error) {
	cfg := g.stream.cfg
	if !g.conn.usable() {
		g.drop()
		connectCtx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
		conn, err := cfg.connect(connectCtx, connectOptions{to: g.stream.conn})
		cancel()
		if err != nil {
			return nil, err
		}
		g.conn = conn
	}
	lookCtx, cancel := context.WithTimeout(ctx, max(cfg.ConnectTimeout, time.Second))
	defer cancel()
	l, err := cfg.look(lookCtx, g.conn)
	if err != nil {
		g.drop()
		return nil, err
	}
	return l, nil
}

// refused tells a server that is going away from one that merely did not answer.
func (g *guard) refused(ctx context.Context, err error) *cdc.Problem {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the stream is being closed
	}
	if errors.Is(err, errCannotConnectNow) {
		return cdc.AsProblem(err)
	}
	g.stream.cfg.Logger.Debug("guard cannot look", "cause", err)
	return nil
}

// changed names what is not as it was, or returns the empty string.
func changed(base, now *look) string {
	was, is := base.Publication, now.Publication
	switch {
	case now.InRecovery != base.InRecovery:
		return "" // another server's matter: the stream ends by itself
	case now.Table == nil:
		return "the table was dropped or renamed"
	case now.Table.OID != base.Table.OID:
		return "the table was dropped and made again"
	case is == nil:
		return "the publication was dropped"
	case is.OID != was.OID:
		return "the publication was dropped and made again"
	case !is.contains():
		return "the table was taken out of the publication"
	case is.RelOID != was.RelOID || is.RelXMin != was.RelXMin:
		return "the table was taken out of the publication and put back, or its filter or column list was changed"
	case !is.Insert:
		return "the publication no longer publishes inserts"
	case is.ViaRoot != was.ViaRoot:
		return "publish_via_partition_root was changed"
	case is.XMin != was.XMin:
		return "the publication was altered"
	}
	return ""
}

func (g *guard) problem(what string, l *look) *cdc.Problem {
	cfg := g.stream.cfg
	return &cdc.Problem{
		Treatment: cdc.Halt, Reason: cdc.HaltStreamChanged,
		What: fmt.Sprintf("publication %q or table %s changed while streaming: %s", cfg.Publication, cfg.Table, what),
		Why:  fmt.Sprintf("inserts between %s and %s may have been passed over", g.good, l.WALEnd),
		Fix:  fmt.Sprintf("%s; what was committed between %s and %s is in doubt", cdc.FixStream, g.good, l.WALEnd),
	}
}
