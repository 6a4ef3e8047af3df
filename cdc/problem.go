package cdc

import (
	"errors"
	"fmt"
	"strings"
)

// ErrSlotActive is what Source.Attach returns (wrapped) while another process
// holds the slot (SQLSTATE 55006): this replica is a standby, not in trouble.
var ErrSlotActive = errors.New("replication slot is active elsewhere")

// ErrSlotReleased is what Stream.Facts returns (wrapped), beside the facts, when
// nobody holds the slot any more: the server has ended the stream, and why is
// the next that Receive returns. Another replica may have held the slot since,
// so what the facts forbid is not proved.
var ErrSlotReleased = errors.New("replication slot is not held any more")

// ErrTransactionTimeout is what Publisher.Publish returns (wrapped) when the
// Kafka transaction ran longer than its timeout: smaller batches may help.
var ErrTransactionTimeout = errors.New("kafka transaction timed out")

// HaltReason is a member of the closed list of reasons to stop for a person.
type HaltReason string

// The closed list. A way out of each is in docs/delivery.md.
const (
	HaltSetup              HaltReason = "setup" // something that init or a configuration change makes was never made
	HaltPositionMissing    HaltReason = "position-missing"
	HaltSlotLost           HaltReason = "slot-lost"
	HaltSlotMoved          HaltReason = "slot-moved"
	HaltServerBehind       HaltReason = "server-behind"
	HaltDiverged           HaltReason = "diverged"
	HaltOtherDatabase      HaltReason = "other-database"
	HaltOtherKafka         HaltReason = "other-kafka"
	HaltTopicRecreated     HaltReason = "topic-recreated"
	HaltStreamChanged      HaltReason = "stream-changed"
	HaltModeChanged        HaltReason = "mode-changed"
	HaltHangingTransaction HaltReason = "hanging-transaction"
	HaltBadRow             HaltReason = "bad-row"
	HaltStuck              HaltReason = "stuck"
	HaltResyncUnfinished   HaltReason = "resync-unfinished"
)

// Treatment says what run does about a Problem.
type Treatment uint8

const (
	// Retry is the zero value: back off and start again.
	Retry Treatment = iota
	// Setup halts with reason setup while nothing was ever recorded. Later it is
	// the halt named by Reason, or a retry where Reason is empty.
	Setup
	// Halt stops for a person with Reason.
	Halt
	// Undecodable is retried; ten times at one position it is the halt stuck.
	Undecodable
)

// Problem is an error that tells an operator what failed, why, and the way
// out. Adapters return it wherever they know more than "it failed".
type Problem struct {
	Treatment Treatment
	Reason    HaltReason // for Setup and Halt
	What      string     // what failed, with names: `publication "payments" does not exist`
	Why       string     // why it matters, or the server's words with SQLSTATE or Kafka error name
	Fix       string     // a command or an action
	Err       error      // the cause; may be nil
}

// Error prints all parts on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Reason != "" {
		b.WriteString(string(p.Reason) + ": ")
	}
	b.WriteString(p.What)
	if p.Why != "" {
		b.WriteString(" (" + p.Why + ")")
	}
	if p.Err != nil {
		fmt.Fprintf(&b, ": %v", p.Err)
	}
	if p.Fix != "" {
		b.WriteString("; way out: " + p.Fix)
	}
	return b.String()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// AsProblem returns the Problem in err's chain, or one made of err that is
// retried. It returns nil for nil.
func AsProblem(err error) *Problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return &Problem{What: err.Error()}
}

// BadRow returns the problem of a row that cannot become a record.
func BadRow(what, fix string) *Problem {
	return &Problem{Treatment: Halt, Reason: HaltBadRow, What: what, Why: "no row is passed over by itself, and those behind it wait for their order", Fix: fix}
}
