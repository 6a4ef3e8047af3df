package cdc

import "fmt"

// NextRows finds the rows that a position record does not cover, as a relay that
// resumes there would: with the same witness, and skipping the same rows. It is
// pure; the caller gives it the messages of a stream from its start.
type NextRows struct {
	s        streaming
	timeline Timeline
	end      LSN
}

// NewNextRows goes on from what Decide allowed; end is the server's WAL end at
// the decision, up to which rows are looked for.
func NewNextRows(record *PositionRecord, resume Resume, timeline Timeline, end LSN) *NextRows {
	n := &NextRows{s: streaming{record: *record, resume: resume, witness: resume.Witness}, timeline: timeline, end: end}
	n.s.record.RecordedLSN = resume.RecordedLSN
	return n
}

// Take takes one message and returns the row that it is, if nothing covers it.
// The stream has come to its end when done is true. Invariant: no row of the
// stream is passed over but those at or before the recorded one.
func (n *NextRows) Take(m *Message) (row *Row, done bool, problem *Problem) {
	s := &n.s
	switch m.Kind {
	case MessageBegin:
		return nil, false, s.begin(m)
	case MessageCommit:
		return nil, false, s.commit(m)
	case MessageInsert:
		row, problem = n.insert(m)
		return row, false, problem
	case MessageKeepalive:
		if s.transaction.open {
			return nil, false, nil
		}
		return nil, m.WALEnd >= n.end, s.passed(m.WALEnd)
	}
	return nil, false, nil
}

func (n *NextRows) insert(m *Message) (*Row, *Problem) {
	if problem := n.s.number(&m.Row, n.timeline); problem != nil {
		return nil, problem
	}
	if undecided, problem := n.s.undecided(&m.Row); !undecided {
		return nil, problem
	}
	row := m.Row.Clone()
	return &row, nil
}

// Skip returns the position record that decides the named row without publishing
// it, and the rows before it in its transaction with their records. waiting are
// the rows that are not decided, in order, up to the named one; why is what is
// wrong with the last of them, nil when it can become a record.
func Skip(record *PositionRecord, named Position, waiting []*Row, why *Problem) (*PositionRecord, *Problem) {
	refuse := func(what, why, fix string) (*PositionRecord, *Problem) {
		return nil, &Problem{Treatment: Halt, Reason: HaltBadRow, What: what, Why: why, Fix: fix}
	}
	if len(waiting) == 0 {
		return refuse(fmt.Sprintf("row %s is not waiting", named.Header()), "the stream has no row that is not decided", "nothing; start the relay")
	}
	first, last := waiting[0], waiting[len(waiting)-1]
	switch {
	case last.Compare(named) != 0:
		return refuse(fmt.Sprintf("row %s is not waiting: the next is %s (event %s)", named.Header(), first.Header(), first.EventID),
			"only the row that the relay waits at can be passed over", "name the row that the relay halts at: cdc-relay status")
	case first.CommitLSN != named.CommitLSN:
		return refuse(fmt.Sprintf("rows of earlier transactions wait before %s, the first of them %s", named.Header(), first.Header()),
			"the relay publishes them before it halts", "start the relay until it halts at the row, then run the command again")
	case why == nil:
		return refuse(fmt.Sprintf("row %s (event %s) can become a record", named.Header(), last.EventID),
			"nothing is wrong with it as the configuration is now", "start the relay, which publishes it")
	}
	decided := *record
	decided.LastRow = markOf(last).lastRow()
	decided.Complete = false // its transaction may have more rows; where it has none, the next start finds that
	return &decided, nil
}

// CheckRecord says why a topic would refuse what a row becomes; nil if it would not.
func CheckRecord(row *Row, record Record, facts TopicFacts) *Problem {
	return checkRecord(&pendingRow{row: *row, record: record}, facts)
}

// offerSkip adds to the way out of a bad row how to go on without it.
func (r *Relay) offerSkip(problem *Problem, row *Row) *Problem {
	if problem.Reason != HaltBadRow || r.cfg.Mode != ExactlyOnce {
		return problem
	}
	offered := *problem
	offered.Fix += "; to pass it over for good: cdc-relay skip --position " + row.Header() + " --confirm"
	return &offered
}
