package main

import (
	"slices"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// headerSequence is the position in a CloudEvent's own words.
const headerSequence = "ce_sequence"

// markLate marks a record that is published outside of the stream. It has no
// position, and the time of producing: an old one would meet retention at once.
func markLate(record *cdc.Record, header, value string) {
	record.Timestamp = time.Time{}
	record.Headers = slices.DeleteFunc(record.Headers, func(h cdc.Header) bool { return h.Key == routing.HeaderPosition || h.Key == headerSequence })
	record.Headers = append(record.Headers, cdc.Header{Key: header, Value: []byte(value)})
}

// keepRow copies what a scan lends. A row's commit time that the server has not
// kept is taken from its id.
func keepRow(row *audit.Row) cdc.Row {
	kept := row.Clone()
	if id := mustParseID(kept.EventID); kept.CommitTime.IsZero() {
		kept.CommitTime = id.Time()
	}
	return kept
}

// mustParseID returns the zero id for what is none.
func mustParseID(text []byte) audit.ID {
	id, _ := audit.ParseID(text) // the scan asked for ids
	return id
}
