package cdc

import (
	"encoding/json"
	"time"
)

// CommandRecordVersion is the form of the command record that this relay writes.
const CommandRecordVersion = 1

// CommandRecord tells what a person let a command do to the relay's position:
// skip, adopt, resync. It is written in the transaction of the position record
// that it explains, under a key of its own that is never written again. It is
// history; nothing is decided by it.
type CommandRecord struct {
	Version int        `json:"version"`
	ID      string     `json:"id"`
	Command string     `json:"command"`           // as typed, without its configuration: "adopt --stream"
	Reason  HaltReason `json:"reason,omitempty"`  // of the finding that it ended; empty where there was none
	Finding string     `json:"finding,omitempty"` // what was found
	Does    []string   `json:"does"`              // in words
	// Before is the position record that it went on from; nil where there was none.
	Before *PositionRecord `json:"before,omitempty"`
	// Events are those that it passed over, or that Kafka has and the database has
	// not; the first thousand of EventCount.
	Events       []string  `json:"events,omitempty"`
	EventCount   int       `json:"event_count,omitempty"`
	RelayVersion string    `json:"relay_version"`
	Host         string    `json:"host"`
	At           time.Time `json:"at"`
}

// Marshal returns the record's value in the position topic.
func (r *CommandRecord) Marshal() ([]byte, error) { return json.Marshal(r) }
