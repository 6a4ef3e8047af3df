package audit

import (
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Report is the outcome. Its JSON is a contract: fields are added, never renamed
// or removed.
type Report struct {
	From    *ID   `json:"from,omitempty"` // the range of ids, from included and to excluded
	To      *ID   `json:"to,omitempty"`
	Rows    int64 `json:"rows"`    // of the snapshot, in the range
	Records int64 `json:"records"` // with an id in the range
	// Proved says that everything in the snapshot was decided before the ends of
	// the topics were read; else a row without a record is pending.
	Proved bool `json:"proved"`

	Found      int64 `json:"found"`   // rows with a record
	Parked     int64 `json:"parked"`  // rows that are told of in the parked topic only
	Pending    int64 `json:"pending"` // rows without a record, while it is not proved that they should have one
	Unroutable int64 `json:"unroutable"`
	Expired    int64 `json:"expired"` // rows older than what retention has left of their partition
	Backfilled int64 `json:"backfilled"`
	Later      int64 `json:"later"`   // records of rows that were committed after the snapshot
	Pruned     int64 `json:"pruned"`  // records without a row, which may have been pruned
	Foreign    int64 `json:"foreign"` // records of somebody else: another source, or no UUID in the id header

	// The differences.
	Missing    int64 `json:"missing"`
	Duplicate  int64 `json:"duplicate"`
	OutOfOrder int64 `json:"out_of_order"`
	WrongPlace int64 `json:"wrong_place"` // another topic or partition than the row routes to
	Changed    int64 `json:"changed"`
	Phantom    int64 `json:"phantom"` // records without a row, which nothing explains

	Order    Order         `json:"order"`
	Topics   []TopicReport `json:"topics"`
	Examples []Example     `json:"examples"`
	Seconds  float64       `json:"seconds"`

	most  int
	shown map[string]int
}

// Order tells what the order per key was judged by.
type Order struct {
	// CommitTimes says that the server knows commit timestamps
	// (track_commit_timestamp is on); without, only rows of one transaction are
	// compared, by their command ids.
	CommitTimes  bool    `json:"commit_timestamps"`
	Tolerance    float64 `json:"tolerance_seconds"`
	PairsChecked int64   `json:"pairs_checked"`
	PairsUnknown int64   `json:"pairs_unknown"` // neighbours of a key for which nothing proves an order
	// PositionsChecked and PositionsBackwards are about the relay's own position
	// headers in each partition: a weaker witness.
	PositionsChecked   int64 `json:"positions_checked"`
	PositionsBackwards int64 `json:"positions_backwards"`
}

// TopicReport counts one topic.
type TopicReport struct {
	Topic      cdc.Topic `json:"topic"`
	Partitions int32     `json:"partitions"` // 0: it does not exist
	Rows       int64     `json:"rows"`
	Records    int64     `json:"records"`
}

// The kinds of examples.
const (
	KindMissing    = "missing"
	KindDuplicate  = "duplicate"
	KindOutOfOrder = "out_of_order"
	KindWrongPlace = "wrong_place"
	KindChanged    = "changed"
	KindPhantom    = "phantom"
	KindPosition   = "position_backwards"
	KindPending    = "pending"
	KindUnroutable = "unroutable"
	KindForeign    = "foreign"
)

// Example is one case. Offset is -1 where there is no record.
type Example struct {
	Kind      string    `json:"kind"`
	EventID   ID        `json:"event_id,omitzero"`
	Topic     cdc.Topic `json:"topic,omitempty"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Text      string    `json:"text,omitempty"`
}

func newReport(cfg *Config) *Report {
	r := &Report{most: cfg.MaxExamples, shown: map[string]int{}, Topics: []TopicReport{}, Examples: []Example{}}
	r.Order.Tolerance = cfg.OrderTolerance.Seconds()
	if !cfg.Range.From.IsZero() {
		r.From = &cfg.Range.From
	}
	if !cfg.Range.To.IsZero() {
		r.To = &cfg.Range.To
	}
	return r
}

// Differences is how much is wrong; 0 is a clean audit.
func (r *Report) Differences() int64 {
	return r.Missing + r.Duplicate + r.OutOfOrder + r.WrongPlace + r.Changed + r.Phantom + r.Order.PositionsBackwards
}

// found counts a case and keeps the first ones of each kind.
func (r *Report) found(count *int64, kind string, example Example) {
	*count++
	if r.shown[kind] < r.most {
		r.shown[kind]++
		example.Kind = kind
		r.Examples = append(r.Examples, example)
	}
}

func (r *Report) finish(topics *topicTable, took time.Duration) {
	r.Seconds = took.Seconds()
	for _, t := range topics.list {
		r.Topics = append(r.Topics, TopicReport{Topic: t.topic, Partitions: t.partitions, Rows: t.rows, Records: t.records})
	}
}
