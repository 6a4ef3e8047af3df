package simulation

import (
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// plan is what one schedule is about. Each is drawn anew, and many faults do
// not occur at all in many schedules (swarm testing): dangers that hide each
// other get their turn.
type plan struct {
	replicas          int
	v2                bool // transaction.version 2
	confirmedFalls    bool // servers before the minor releases of 2025
	emptyTransactions bool // as servers before 15 send them
	reconfigures      bool // transactional ids change from start to start
	limits            cdc.BatchLimits
	drainTimeout      time.Duration
	lostAnswers       int // permille
	maxRows           int // of a database transaction
	table             []eventKind
}

// weight is how often an event is chosen: base for what happens in every
// schedule; for faults, most is the largest of the drawn weights and odds the
// number of schedules of which one has it at all.
type weight struct {
	kind       eventKind
	base       int
	most, odds int
}

var weights = []weight{
	{kind: eventReplica, base: 64},
	{kind: eventSend, base: 24},
	{kind: eventDeliver, base: 26},
	{kind: eventMark, base: 14},
	{kind: eventStatus, base: 6},
	{kind: eventTick, base: 10},
	{kind: eventWrite, base: 4},
	{kind: eventForeign, base: 1, most: 2, odds: 2},
	{kind: eventKeepalive, base: 1, most: 3, odds: 1},
	{kind: eventPersist, base: 1},
	{kind: eventStart, base: 3},
	{kind: eventLaunch, base: 2},
	{kind: eventResume, base: 1},
	{kind: eventGuard, base: 1},
	{kind: eventDropServer, most: 3, odds: 2},
	{kind: eventBreak, most: 2, odds: 2},
	{kind: eventKill, most: 3, odds: 2},
	{kind: eventPause, most: 3, odds: 2},
	{kind: eventStop, most: 1, odds: 3},
	{kind: eventCrash, most: 1, odds: 2},
	{kind: eventShutdown, most: 1, odds: 3},
	{kind: eventFailover, most: 1, odds: 4},
	{kind: eventFailoverLoss, most: 1, odds: 5},
	{kind: eventTimeOut, most: 3, odds: 3},
	{kind: eventAgain, most: 6, odds: 2},
	{kind: eventGiveUp, most: 4, odds: 2},
	{kind: eventLose, most: 3, odds: 2},
	{kind: eventAlter, most: 1, odds: 24},
	{kind: eventCopy, most: 2, odds: 2},
	{kind: eventRestore, most: 3, odds: 3},
	{kind: eventAdvanceSlot, most: 1, odds: 24},
	{kind: eventDropSlot, most: 1, odds: 40},
}

func (w *World) drawPlan() {
	p := &w.plan
	*p = plan{table: p.table[:0]}
	p.replicas = 1 + w.pick(2)
	p.v2 = w.pick(2) == 0
	p.confirmedFalls = w.pick(4) == 3
	p.emptyTransactions = w.pick(3) == 2
	p.reconfigures = w.pick(4) == 3
	p.limits = cdc.BatchLimits{MaxRows: 1 + w.pick(4), MaxBytes: 1 << 20, MaxPartitions: parts}
	switch w.pick(6) {
	case 4:
		p.limits.MaxBytes = recordBytes * 5 / 2
	case 5:
		p.limits.MaxPartitions = 1 + w.pick(2)
	}
	p.drainTimeout = []time.Duration{20 * time.Second, time.Second}[w.pick(2)]
	p.lostAnswers = []int{0, 0, 30, 150}[w.pick(4)]
	p.maxRows = 1 + w.pick(5)
	for _, event := range weights {
		n := event.base
		if event.most > 0 && w.pick(event.odds) == event.odds-1 {
			n += 1 + w.pick(event.most)
		}
		for range n {
			p.table = append(p.table, event.kind)
		}
	}
}

func (w *World) pickIDs() cdc.TransactionalIDs {
	prefix := "a"
	if w.plan.reconfigures && w.pick(2) == 1 {
		prefix = "b"
	}
	return cdc.TransactionalIDs{Prefix: prefix, Ring: []int{1, 1, 2, 3, 4}[w.pick(5)]}
}
