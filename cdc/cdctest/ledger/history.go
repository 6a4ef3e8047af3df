package ledger

import "github.com/cdc-relay/cdc-relay/cdc"

// History is everything that a run left behind: what was committed and what was
// seen. Check judges it without asking anybody else.
type History struct {
	// Committed is the truth: the database transactions with outbox rows, in
	// commit order.
	Committed []Transaction
	// Partitions is the pinned partition count of the topic.
	Partitions int32
	// Seen is what the concurrent reader saw, in the order in which it saw it.
	Seen []Record
	// Dump is what a second reader saw after the run; nil when there was none.
	Dump []Record
	// Positions is the position topic, committed records only, by offset. Empty
	// leaves out every check that needs them; Report.Batches is then 0.
	Positions []PositionRecord
	// Acks are samples of what the slot was told, taken while the faults happened.
	Acks []AckSample
	// MayCutRows is the number of rows from which on a database transaction may
	// be spread over several batches: the smallest row limit of the run.
	MayCutRows int
	// AtLeastOnce judges by the rules of that mode; Positions are left out then.
	AtLeastOnce bool
	// SlotFellBack: a crash of Postgres moved the slot back to where it stood on
	// disk, so that what was acknowledged may be sent again.
	SlotFellBack bool
}

// Event is one committed outbox row.
type Event struct {
	ID  string
	Key string
	Seq int64 // 1, 2, 3 ... within the key, in commit order
}

// Transaction is one committed database transaction, its rows in the order of
// their inserts: the serial of Events[i] is i+1.
type Transaction struct {
	XID    cdc.XID
	EndLSN cdc.LSN // zero when not known; then headers are checked for order only
	Events []Event
}

// Record is one record of the topic as a read_committed consumer got it.
type Record struct {
	Partition int32
	Offset    int64
	ID        string
	Key       string
	Seq       int64
	Tag       string // what the writer said about the row's fate
	Position  cdc.Position
	// KafkaTransaction counts the markers of the record's producer before it in its
	// partition: records of one partition and producer share a Kafka transaction
	// exactly if this number is the same.
	KafkaTransaction int
	ProducerID       int64
	ProducerEpoch    int16
	Digest           Digest
}

// Digest stands for all bytes of a record's key, value and headers.
type Digest [16]byte

// PositionRecord is one record of the position topic.
type PositionRecord struct {
	Offset int64
	*cdc.PositionRecord
}

// AckSample says what the slot had been told at one moment, and how far the
// position topic reached right after it. EndOffset is the high watermark, not
// the last stable offset: the marker of a decided transaction may be on its way.
type AckSample struct {
	ConfirmedLSN cdc.LSN
	EndOffset    int64
	// EndOffsets are the high watermarks of the topic's partitions; only in mode
	// at-least-once, which has no position topic.
	EndOffsets []int64
}
