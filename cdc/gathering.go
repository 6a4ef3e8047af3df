package cdc

import "time"

const (
	// behindAfter is how old a transaction must be, when the server sends it, to
	// belong to a backlog: nobody waits for it to the millisecond any more.
	behindAfter = 50 * time.Millisecond
	// gatherFor is the time between two batches of a backlog. A Kafka transaction
	// costs relay and brokers the same whatever is in it: handed over at once,
	// the batches of a backlog stay small, and their cost keeps them so.
	gatherFor = 50 * time.Millisecond
)

// gathering decides whether a batch that could end now waits for more rows.
// Batches are natural otherwise: one fills while the one before is published.
type gathering struct {
	behind   bool      // the newest transaction belongs to a backlog
	handedAt time.Time // when the last batch was handed over
}

// note takes a BEGIN. Both times are the server's, so no clock is compared
// with another.
func (g *gathering) note(begin *Message) {
	g.behind = !begin.ServerTime.IsZero() && begin.ServerTime.Sub(begin.CommitTime) > behindAfter
}

func (g *gathering) until() time.Time { return g.handedAt.Add(gatherFor) }

// mayWait says whether the batch, which has ended at a COMMIT, may grow: only
// as long as rows of a backlog come, and nobody waits for an end.
func (r *Relay) mayWait(now time.Time) bool {
	s := &r.stream
	return r.phase == PhaseStreaming && s.gather.behind && !s.replyWanted && s.blocked == nil && now.Before(s.gather.until())
}
