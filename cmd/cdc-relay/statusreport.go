package main

import (
	"fmt"
	"io"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// statusReport is the body of /status and the output of `status -o json`: a
// contract. Fields may be added, never renamed or removed. LSNs are text as
// Postgres prints them, ages are seconds, times are RFC 3339.
type statusReport struct {
	Relay   string `json:"relay"`
	Version string `json:"version"`
	// From says who answered: "relay" (a running relay about itself) or "servers"
	// (no relay was reachable; Postgres and Kafka were asked).
	From    string `json:"from"`
	Healthy bool   `json:"healthy"`
	// Delivery is the mode of the relay that answered, or of the configuration.
	Delivery cdc.Mode `json:"delivery"`
	// Unhealthy lists why, for people.
	Unhealthy []string `json:"unhealthy,omitempty"`

	// Of a running relay.
	State       cdc.State    `json:"state,omitempty"`
	StateAge    *float64     `json:"state_age_seconds,omitempty"`
	Cause       *statusCause `json:"cause,omitempty"` // why it is retrying, stalled or halted
	Active      *bool        `json:"active,omitempty"`
	LagSeconds  *float64     `json:"lag_seconds,omitempty"`
	OwedRows    *int         `json:"owed_rows,omitempty"`
	OwedBytes   *int         `json:"owed_bytes,omitempty"`
	ReceivedLSN cdc.LSN      `json:"received_lsn,omitempty"`
	CaughtUpAt  *time.Time   `json:"caught_up_at,omitempty"`
	MovedAge    *float64     `json:"moved_age_seconds,omitempty"` // since the loop last took a step

	RecordedLSN  cdc.LSN `json:"recorded_lsn,omitempty"`
	ConfirmedLSN cdc.LSN `json:"confirmed_lsn,omitempty"`

	Slot   *statusSlot         `json:"slot,omitempty"`
	Record *cdc.PositionRecord `json:"position_record,omitempty"`
}

// statusCause is a problem in its three parts.
type statusCause struct {
	Reason cdc.HaltReason `json:"reason,omitempty"`
	What   string         `json:"what"`
	Why    string         `json:"why,omitempty"`
	Fix    string         `json:"fix,omitempty"`
}

// statusSlot is the slot. A running relay tells its name and the confirmed LSN
// at its last look, the servers tell everything.
type statusSlot struct {
	Name             string  `json:"name"`
	Exists           *bool   `json:"exists,omitempty"`
	Active           *bool   `json:"active,omitempty"`
	ActivePID        int32   `json:"active_pid,omitempty"`
	ConfirmedLSN     cdc.LSN `json:"confirmed_lsn,omitempty"`
	WALStatus        string  `json:"wal_status,omitempty"`
	UnconfirmedBytes *int64  `json:"unconfirmed_wal_bytes,omitempty"` // WAL end - confirmed
	RetainedBytes    *int64  `json:"retained_wal_bytes,omitempty"`    // WAL end - restart
	SafeBytes        *int64  `json:"safe_wal_bytes,omitempty"`        // left until invalidation
}

// lagSeconds is nil where nothing bounds the lag.
func lagSeconds(s *cdc.Status, now time.Time) *float64 {
	lag, known := s.Lag(now)
	if !known {
		return nil
	}
	seconds := lag.Seconds()
	return &seconds
}

func newStatusReport(relay, slot string, s *cdc.Status, now time.Time) *statusReport {
	r := &statusReport{
		Relay: relay, Version: readVersion().Version, From: "relay", Delivery: s.Mode,
		State: s.State, StateAge: age(now, s.Since), Active: &s.Active, LagSeconds: lagSeconds(s, now),
		OwedRows: &s.OwedRows, OwedBytes: &s.OwedBytes,
		ReceivedLSN: s.ReceivedLSN, RecordedLSN: s.RecordedLSN, ConfirmedLSN: s.ConfirmedLSN,
		MovedAge: age(now, s.MovedAt),
		Slot:     &statusSlot{Name: slot, ConfirmedLSN: max(s.SlotConfirmedLSN, s.ConfirmedLSN)},
		Record:   s.Record,
	}
	if !s.CaughtUpAt.IsZero() {
		r.CaughtUpAt = &s.CaughtUpAt
	}
	if s.Cause != nil {
		r.Cause = &statusCause{Reason: s.Cause.Reason, What: s.Cause.What, Why: whyOf(s.Cause), Fix: s.Cause.Fix}
	}
	r.Healthy = s.State == cdc.StateStreaming || s.State == cdc.StateStandby
	if !r.Healthy {
		r.Unhealthy = []string{"the relay is " + string(s.State)}
	}
	return r
}

// newServerReport is made when no relay answers.
func newServerReport(c *loadedConfig, stats cdc.SlotStats, record *cdc.PositionRecord) *statusReport {
	r := &statusReport{Relay: c.Relay, Version: readVersion().Version, From: "servers", Delivery: cdc.Mode(c.Delivery), Record: record}
	exists := stats.Slot != nil
	r.Slot = &statusSlot{Name: c.Postgres.Slot, Exists: &exists, SafeBytes: stats.SafeWALBytes}
	bad := func(text string) { r.Unhealthy = append(r.Unhealthy, text) }
	if s := stats.Slot; s != nil {
		unconfirmed := int64(stats.CurrentLSN - s.ConfirmedFlush)
		retained := int64(stats.CurrentLSN - s.Restart)
		r.Slot.Active, r.Slot.ActivePID = &s.Active, s.ActivePID
		r.Slot.ConfirmedLSN, r.Slot.WALStatus = s.ConfirmedFlush, s.WALStatus
		r.Slot.UnconfirmedBytes, r.Slot.RetainedBytes = &unconfirmed, &retained
		r.ConfirmedLSN = s.ConfirmedFlush
		if s.Lost() {
			bad("the slot is lost")
		} else if !s.Active {
			bad("the slot is not active: no relay is streaming")
		}
	} else {
		bad("the slot does not exist")
	}
	switch {
	case r.Delivery == cdc.AtLeastOnce: // a record, if there is one, is of another time
	case record == nil:
		bad("there is no position record")
	case record.State != cdc.RecordRunning:
		bad("the position record says " + string(record.State))
		fallthrough
	default:
		r.RecordedLSN = record.RecordedLSN
	}
	r.Healthy = len(r.Unhealthy) == 0
	return r
}

func age(now, since time.Time) *float64 {
	if since.IsZero() {
		return nil
	}
	seconds := max(0, now.Sub(since)).Seconds()
	return &seconds
}

// print writes the report for people.
func (r *statusReport) print(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("relay", "%s", r.Relay)
	if r.Delivery != "" {
		line("delivery", "%s", r.Delivery)
	}
	if r.From == "servers" {
		line("answered by", "Postgres and Kafka: no running relay was reachable")
	}
	if r.State != "" {
		line("state", "%s for %s", r.State, seconds(r.StateAge))
	}
	if c := r.Cause; c != nil {
		line("what", "%s", c.What)
		if c.Why != "" {
			line("why", "%s", c.Why)
		}
		if c.Fix != "" {
			line("fix", "%s", c.Fix)
		}
	}
	if r.LagSeconds != nil {
		line("lag", "%s, %d rows owed", seconds(r.LagSeconds), *r.OwedRows)
	}
	if r.ReceivedLSN != 0 {
		line("received", "%s", r.ReceivedLSN)
	}
	if r.RecordedLSN != 0 {
		line("recorded", "%s", r.RecordedLSN)
	}
	if r.ConfirmedLSN != 0 {
		line("confirmed", "%s", r.ConfirmedLSN)
	}
	r.Slot.print(line)
	if r.Record != nil {
		line("position", "%s, generation %d, written %s", r.Record.Position(), r.Record.Generation, r.Record.At.Format(time.RFC3339))
	}
	for _, why := range r.Unhealthy {
		line("unhealthy", "%s", why)
	}
}

func (s *statusSlot) print(line func(name, format string, args ...any)) {
	if s == nil {
		return
	}
	text := s.Name
	if s.Exists != nil && !*s.Exists {
		text += ", does not exist"
	}
	if s.Active != nil && *s.Active {
		text += fmt.Sprintf(", active for PID %d", s.ActivePID)
	}
	if s.WALStatus != "" {
		text += ", WAL " + s.WALStatus
	}
	if s.UnconfirmedBytes != nil {
		text += fmt.Sprintf(", %d bytes unconfirmed, %d retained", *s.UnconfirmedBytes, *s.RetainedBytes)
	}
	line("slot", "%s", text)
}

func seconds(s *float64) string {
	if s == nil {
		return "unknown"
	}
	d := time.Duration(*s * float64(time.Second))
	if d > time.Second {
		return d.Truncate(time.Second).String()
	}
	return d.Truncate(time.Millisecond).String()
}
