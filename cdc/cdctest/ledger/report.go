package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// Kind names a way in which a history can be wrong.
type Kind string

// The kinds of violations, in the order of a report.
const (
	Loss             Kind = "loss"              // a committed row was never seen
	Duplicate        Kind = "duplicate"         // a row was seen more than once
	Phantom          Kind = "phantom"           // something was seen that was not committed
	WrongContent     Kind = "wrong-content"     // key or payload of a record differ from the row's
	PartitionOrder   Kind = "partition-order"   // offsets of a partition do not follow the commits
	Prefix           Kind = "prefix"            // what a partition showed at some moment was no prefix of its part
	KeyOrder         Kind = "key-order"         // the numbers within a key do not rise
	KeyPlacement     Kind = "key-placement"     // a key outside the partition that its hash says
	HeaderOrder      Kind = "header-order"      // position headers of a partition do not rise
	HeaderMismatch   Kind = "header-mismatch"   // a position header differs from where the row really stands
	PositionOrder    Kind = "position-order"    // position records go back
	PositionRow      Kind = "position-row"      // a position record names another row than the one that stands there
	PositionAhead    Kind = "position-ahead"    // the last position covers a row that was never seen
	PositionBehind   Kind = "position-behind"   // a record was committed without a position that covers it
	TornTransaction  Kind = "torn-transaction"  // a database transaction that fits was cut
	KafkaTransaction Kind = "kafka-transaction" // records and the position that covers them were not committed together
	EpochBack        Kind = "epoch-back"        // a fenced producer wrote after its successor
	AckAhead         Kind = "ack-ahead"         // the slot was told more than Kafka had recorded
	UnstableRead     Kind = "unstable-read"     // a later reader saw something else

	// In mode at-least-once, where a row may be seen again.
	RepeatDiffers      Kind = "repeat-differs"      // a repeat has other bytes, or is in another partition
	RepeatInLife       Kind = "repeat-in-life"      // one life of the producer published a row twice
	RepeatAcknowledged Kind = "repeat-acknowledged" // a life repeated what the slot had acknowledged before it
)

var kinds = []Kind{
	Loss, Duplicate, Phantom, WrongContent, PartitionOrder, Prefix, KeyOrder, KeyPlacement, HeaderOrder, HeaderMismatch,
	PositionOrder, PositionRow, PositionAhead, PositionBehind, TornTransaction, KafkaTransaction, EpochBack, AckAhead, UnstableRead,
	RepeatDiffers, RepeatInLife, RepeatAcknowledged,
}

// maxExamples bounds what a report shows of one kind: the first cases tell most.
const maxExamples = 5

// Report is the judgement about a history. The zero Report has no violations.
type Report struct {
	Transactions int
	Rows         int
	Records      int
	Batches      int // position records that cover rows
	Repeats      int // records of rows that were seen before; only allowed at least once

	counts   map[Kind]int
	examples map[Kind][]string
}

func (r *Report) add(kind Kind, format string, args ...any) {
	if r.counts == nil {
		r.counts, r.examples = map[Kind]int{}, map[Kind][]string{}
	}
	r.counts[kind]++
	if len(r.examples[kind]) < maxExamples {
		r.examples[kind] = append(r.examples[kind], fmt.Sprintf(format, args...))
	}
}

// Count returns how often the kind was violated.
func (r *Report) Count(kind Kind) int { return r.counts[kind] }

// Kinds returns the kinds that were violated.
func (r *Report) Kinds() []Kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return r.counts[k] == 0 })
}

// Err is nil for an exact history; else it names each violation with its first
// examples.
func (r *Report) Err() error {
	if len(r.counts) == 0 {
		return nil
	}
	return fmt.Errorf("ledger: %s", r)
}

// String is for people.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions, %d rows, %d records, %d batches, %d repeats", r.Transactions, r.Rows, r.Records, r.Batches, r.Repeats)
	for _, kind := range r.Kinds() {
		fmt.Fprintf(&b, "\n  %s: %d", kind, r.counts[kind])
		for _, example := range r.examples[kind] {
			fmt.Fprintf(&b, "\n    %s", example)
		}
	}
	return b.String()
}
