package cdc

import "time"

// BatchLimits bound one Kafka transaction, and with it the relay's memory: at
// most two batches exist at a time.
type BatchLimits struct {
	MaxRows       int // default 10000
	MaxBytes      int // default 4 MiB; a single larger record makes a batch of its own
	MaxPartitions int // default 500; each touched partition costs a commit marker
}

// Halved returns the limits for the start after a transaction timed out.
func (l BatchLimits) Halved() BatchLimits {
	return BatchLimits{MaxRows: max(1, l.MaxRows/2), MaxBytes: max(64<<10, l.MaxBytes/2), MaxPartitions: max(1, l.MaxPartitions/2)}
}

// Batch is the content of one Kafka transaction: records in the order of the
// WAL, then the position record that makes them count. A batch without records
// records idle progress.
type Batch struct {
	Records []Record
	Bytes   int // of Records
	// Position is produced last, to the position topic, in the same transaction.
	Position *PositionRecord
	// Pins is the whole new set of topic pins; nil when it did not change.
	Pins []TopicPin
	// OldestCommit is the commit time of the first record's transaction.
	OldestCommit time.Time
	// CommitTimes has the commit time of each record's transaction.
	CommitTimes []time.Time
}
