package cdc

import (
	"encoding/json"
	"fmt"
	"time"
)

// PositionRecordVersion is the newest form of the position record that this
// relay writes and the newest that it reads.
const PositionRecordVersion = 1

// RecordState says what the writer of a position record was doing.
type RecordState string

// The states of a position record.
const (
	RecordRunning      RecordState = "running"
	RecordInitialising RecordState = "initialising" // init began and has not finished
	RecordResyncing    RecordState = "resyncing"    // resync began and has not finished
)

// Mode is the delivery guarantee.
type Mode string

// The modes of delivery.
const (
	// ExactlyOnce: each row once, in commit order, proved by position records.
	ExactlyOnce Mode = "exactly-once"
	// AtLeastOnce: each row, after a restart perhaps again. No transactions and no
	// position records; the slot alone says where to go on.
	AtLeastOnce Mode = "at-least-once"
)

// PositionRecord is the relay's whole durable state: how far the history of
// one database is in Kafka. It is the last record of every Kafka transaction,
// so that it is true exactly when the batch is.
type PositionRecord struct {
	Version    int         `json:"version"`
	State      RecordState `json:"state"`
	Mode       Mode        `json:"mode"`
	Generation uint16      `json:"generation"`
	SystemID   string      `json:"system_id"`
	Lineage    Lineage     `json:"lineage"`
	// RecordedLSN: up to here nothing is owed.
	// Invariant: max(the previous one, end LSN of the last complete transaction,
	// idle LSN); falls only at a timeline switch or with a new generation.
	RecordedLSN LSN `json:"recorded_lsn"`
	// LastRow is the last row decided (published, parked or skipped); nil after
	// genesis, when no row was ever decided.
	LastRow *LastRow `json:"last_row,omitempty"`
	// Complete is false when the batch was cut inside LastRow's transaction.
	Complete bool `json:"complete"`
	// EndLSN is the end LSN of the last complete transaction with rows.
	EndLSN           LSN                 `json:"end_lsn"`
	IdleLSN          LSN                 `json:"idle_lsn"`
	Slot             string              `json:"slot"`
	Publication      PublicationIdentity `json:"publication"`
	Table            TableIdentity       `json:"table"`
	TransactionalIDs TransactionalIDs    `json:"transactional_ids"`
	// Attempt counts the attempts of a resync that has not finished; else 0.
	Attempt        int    `json:"attempt,omitempty"`
	KafkaClusterID string `json:"kafka_cluster_id"`
	// PublishedFloor is nil until one is proved, and again after an adoption that
	// may leave rows behind: then nothing but Kafka tells what is in Kafka.
	PublishedFloor *PublishedFloor `json:"published_floor,omitempty"`
	RelayVersion   string          `json:"relay_version"`
	Host           string          `json:"host"`
	At             time.Time       `json:"at"`
}

// LastRow identifies the last decided row; the witness of a re-sent stream.
type LastRow struct {
	CommitLSN  LSN       `json:"commit_lsn"`
	Serial     uint32    `json:"serial"`
	EventID    string    `json:"event_id"`
	XID        XID       `json:"xid"`
	CommitTime time.Time `json:"commit_time"`
}

// PublicationIdentity changes when the publication, or the table's membership
// in it, is dropped, made again or altered.
type PublicationIdentity struct {
	Name    string `json:"name"`
	OID     uint32 `json:"oid"`
	XMin    XID    `json:"xmin"`
	RelOID  uint32 `json:"rel_oid"`
	RelXMin XID    `json:"rel_xmin"`
	ViaRoot bool   `json:"via_root"`
}

// TableIdentity changes when the outbox table is dropped and made again.
type TableIdentity struct {
	Name string `json:"name"` // schema.table
	OID  uint32 `json:"oid"`
}

// TransactionalIDs names the ids <prefix>.0 ... <prefix>.<ring-1>.
type TransactionalIDs struct {
	Prefix string `json:"prefix"`
	Ring   int    `json:"ring"`
}

// Lineage is a history of timelines, oldest first; the last has no switch.
type Lineage []TimelineSpan

// TimelineSpan is one timeline and the LSN at which the next one left it.
type TimelineSpan struct {
	Timeline Timeline `json:"timeline"`
	Switch   LSN      `json:"switch,omitempty"` // zero for the current timeline
}

// Position of the last decided row; serial 0 when there is none.
func (r *PositionRecord) Position() Position {
	p := Position{Generation: r.Generation, Timeline: r.Timeline()}
	if r.LastRow != nil {
		p.CommitLSN, p.Serial = r.LastRow.CommitLSN, r.LastRow.Serial
	}
	return p
}

// Timeline is the one that the record was written on; 0 if it names none.
func (r *PositionRecord) Timeline() Timeline {
	if len(r.Lineage) == 0 {
		return 0
	}
	return r.Lineage[len(r.Lineage)-1].Timeline
}

// Marshal returns the record's value in the position topic.
func (r *PositionRecord) Marshal() ([]byte, error) { return json.Marshal(r) }

// UnmarshalPositionRecord reads a record's value. A newer version is refused:
// guessing at a field that this relay does not know could lose rows.
func UnmarshalPositionRecord(value []byte) (*PositionRecord, error) {
	var r PositionRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("position record: %w", err)
	}
	if r.Version < 1 || r.Version > PositionRecordVersion {
		return nil, fmt.Errorf("position record has version %d, this relay knows 1 to %d: run the newer cdc-relay that wrote it", r.Version, PositionRecordVersion)
	}
	return &r, nil
}

// TopicPin ties a topic's identity and partition count to the relay's history;
// pins are stored under the key <relay>/topics.
type TopicPin struct {
	Topic      Topic  `json:"topic"`
	ID         string `json:"id"` // Kafka's topic id, as a UUID in base64 as Kafka prints it; empty where the broker has none
	Partitions int32  `json:"partitions"`
}

// TopicFacts is what Kafka says about a topic now.
type TopicFacts struct {
	TopicPin             // ID and count as Kafka reports them now
	MaxMessageBytes int  // max.message.bytes: the largest record batch that the topic accepts
	Compacted       bool // cleanup.policy contains compact: a null key is refused
}
