package cdc

import (
	"context"
	"time"
)

// Source is the Postgres side as the start algorithm calls it. Its methods run
// on the worker goroutine, one at a time, and may block until ctx ends.
type Source interface {
	// Inspect looks at the server over SQL without touching anything (start
	// step 2). It returns a *Problem for each finding that forbids to stream
	// (joined), besides a missing or active slot, which the facts show.
	Inspect(ctx context.Context) (SourceFacts, error)
	// Attach begins to stream from the slot at 0/0 (start step 4); an error
	// wrapping ErrSlotActive means that another process holds it.
	Attach(ctx context.Context) (Stream, error)
	// Close releases the SQL connection; the Source is reusable after it.
	Close()
}

// Stream is one replication connection: the lease on the slot. Receive, Status
// and Close belong to the goroutine that owns it; Wake and Facts may be called
// from any other. After Facts succeeded the stream also guards what it found: a
// publication or table that is altered, dropped or made again ends it, Receive
// returning a *Problem with reason stream-changed that names the LSN range.
type Stream interface {
	// Receive returns the next message, or nil when until has come, or after
	// Wake. The message is valid until the next call; what its Row references
	// stays valid. An error ends the stream.
	Receive(until time.Time) (*Message, error)
	// Status acknowledges confirmed (write, flush and apply alike); 0 is a pure
	// heartbeat that acknowledges nothing. It must not block longer than the
	// connection's write deadline.
	Status(confirmed LSN, replyRequested bool) error
	// StatusInterval is the longest time that may pass between two statuses:
	// min(5 s, wal_sender_timeout / 4).
	StatusInterval() time.Duration
	// Facts reads, on a second connection to the same server, all facts that
	// decide (start step 6); it fails when the slot's active_pid is not this
	// stream's walsender or the server is not the same.
	Facts(ctx context.Context) (SourceFacts, error) // or both; see ErrSlotReleased
	// Wake makes a Receive that runs now, or else the next one, return early.
	Wake()
	// Lost is closed when the stream was found to be over while nobody had to read
	// it, as when the server shuts down; Receive then says why.
	Lost() <-chan struct{}
	// Close ends the stream in good order (CopyDone) where the connection still
	// works, and frees the slot. It takes at most a second.
	Close() error
}

// Sink is the Kafka side. Its methods run on the worker goroutine, one at a
// time, and may block until ctx ends.
type Sink interface {
	// Advise reads the newest position record without fencing anybody (start
	// step 3). No record is (nil, nil). Its cluster id is filled in.
	Advise(ctx context.Context) (KafkaFacts, error)
	// Open makes a new client, fences every transactional id of the ring, and
	// reads position and pins to a proved end (start step 5). Called only while
	// this process holds the slot.
	Open(ctx context.Context) (Publisher, KafkaFacts, error)
}

// Publisher owns the transactional ids of one life. After any error of Publish
// it is of no use but to be closed.
//
// In mode at-least-once it owns none: Publish returns nil once every record of
// the batch is acknowledged, and writes no position record and no pins; nobody
// fences it, and after an error the records are in Kafka, or not, or will be.
type Publisher interface {
	// Topic looks a topic up before its first record: that it exists (or is
	// created where the configuration allows), and its facts.
	Topic(ctx context.Context, topic Topic) (TopicFacts, error)
	// Publish commits the batch and its position record in one transaction. Nil
	// means committed; any error means that the outcome is to be read from the
	// position topic by a new Publisher, never inferred. It does not modify the
	// batch and keeps nothing of it after it returned.
	Publish(ctx context.Context, batch *Batch) error
	// Close drops all clients without waiting for anything in flight.
	Close()
}

// Router turns a row into a record. It is pure: same row, same record.
type Router interface {
	// Route returns the row's record, without its partition, or a *Problem with
	// reason bad-row. It references the row's values and the router's memory, and
	// is valid until the next call: who keeps it, keeps a Clone.
	Route(row *Row) (Record, error)
}

// Observer is told what operators want to count. Its methods are called from
// Run's goroutine and must not block.
type Observer interface {
	// StateChanged: cause is nil unless the new state is retrying, stalled or halted.
	StateChanged(from, to State, cause *Problem)
	// Received counts messages read from the stream since the last call.
	Received(counts ReceivedCounts)
	// Recorded reports one committed Kafka transaction.
	Recorded(batch *Batch, took time.Duration, now time.Time)
	// Failed reports what led to a restart of both sides, or to a halt.
	Failed(cause *Problem)
}

// ReceivedCounts are increments.
type ReceivedCounts struct {
	Transactions uint64 // with at least one row of ours
	Rows         uint64
	SkippedRows  uint64 // covered by the recorded position
	Ignored      uint64 // updates, deletes, truncates and other messages that are no events
	Bytes        uint64 // of row values
}

// State is what the relay is doing, for people and alerts.
type State string

// The states.
const (
	StateStarting  State = "starting"
	StateStandby   State = "standby"
	StateStreaming State = "streaming"
	StateRetrying  State = "retrying"
	StateStalled   State = "stalled"
	StateHalted    State = "halted"
	StateStopping  State = "stopping"
)

// States lists every state, for metrics that show each as 0 or 1.
var States = []State{StateStarting, StateStandby, StateStreaming, StateRetrying, StateStalled, StateHalted, StateStopping}

// Status is a picture of the relay at one moment: what /status, /readyz,
// /published and the lag metrics are answered from.
type Status struct {
	State  State
	Since  time.Time
	Cause  *Problem // why it is retrying, stalled or halted
	Active bool     // this replica holds the slot
	Mode   Mode     // of delivery

	Position     Position
	ReceivedLSN  LSN
	RecordedLSN  LSN
	ConfirmedLSN LSN
	WALPages     WALPages
	// OwedRows were received and are not recorded; OldestOwed is the commit time
	// of the first of them.
	OwedRows   int
	OwedBytes  int
	OldestOwed time.Time
	// SlotConfirmedLSN is the slot's confirmed_flush_lsn at the last look over SQL,
	// refreshed every 200 ms on a standby.
	SlotConfirmedLSN LSN
	// CaughtUpAt is when, on the server's clock, nothing received was owed and
	// the stream was read to the end that the server reported; zero before.
	CaughtUpAt time.Time
	// ServerClock is what to add to this host's clock to get the server's.
	ServerClock time.Duration
	Record      *PositionRecord // the newest known; nil before the first read, and in mode at-least-once
	MovedAt     time.Time       // when the loop last took a step
}

// Lag is the replication lag at now: the age, on the server's clock, of the
// oldest row that is committed and not recorded. While the relay does not
// stream, rows may wait unseen; the time since it was last caught up bounds
// their age from above. Known is false where nothing bounds it: on a standby,
// whose active replica knows, and in a process that has not streamed yet.
func (s *Status) Lag(now time.Time) (lag time.Duration, known bool) {
	serverNow := now.Add(s.ServerClock)
	switch {
	case s.OwedRows > 0:
		return max(0, serverNow.Sub(s.OldestOwed)), true
	case s.State == StateStreaming:
		return 0, true
	case s.State == StateStandby, s.CaughtUpAt.IsZero():
		return 0, false
	default:
		return max(0, serverNow.Sub(s.CaughtUpAt)), true
	}
}
