package cdc

import (
	"errors"
	"log/slog"
	"time"
)

// Config is everything that a Runner needs. Source, Sink and Router have no
// default.
type Config struct {
	Source   Source
	Sink     Sink
	Router   Router
	Park     Parker       // nil: a bad row halts
	Observer Observer     // nil: nobody counts
	Logger   *slog.Logger // nil discards

	Mode     Mode        // default exactly-once
	Identity Identity    // Slot and TransactionalIDs are required
	Limits   BatchLimits // zero fields take their defaults
	Once     bool        // end when everything committed before the start is in Kafka
	StayUp   bool        // after a halt Run keeps the status available until its context ends
	// DrainTimeout bounds the time between the end of reading and the end of
	// Run; default 20 s. At zero rows owed it is not used up.
	DrainTimeout time.Duration
	// PublishTimeout bounds one Kafka transaction; default 20 s. It should
	// exceed the transaction timeout, past which the broker has aborted it.
	PublishTimeout time.Duration
}

func (c *Config) setDefaults() {
	if c.Mode == "" {
		c.Mode = ExactlyOnce
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = nopObserver{}
	}
	setDefault(&c.Limits.MaxRows, 2000)
	setDefault(&c.Limits.MaxBytes, 1<<20)
	setDefault(&c.Limits.MaxPartitions, 500)
	setDefault(&c.DrainTimeout, 20*time.Second)
	setDefault(&c.PublishTimeout, 20*time.Second)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	var problems []error
	require := func(ok bool, text string) {
		if !ok {
			problems = append(problems, errors.New(text))
		}
	}
	require(c.Source != nil, "no Source")
	require(c.Sink != nil, "no Sink")
	require(c.Router != nil, "no Router")
	require(c.Mode == ExactlyOnce || c.Mode == AtLeastOnce, "mode "+string(c.Mode)+" is unknown")
	require(c.Identity.Slot != "", "Identity names no slot")
	require(c.Identity.TransactionalIDs.Prefix != "" && c.Identity.TransactionalIDs.Ring > 0, "Identity names no transactional ids")
	require(c.Limits.MaxRows > 0 && c.Limits.MaxBytes > 0 && c.Limits.MaxPartitions > 0, "batch limits must be positive")
	require(c.DrainTimeout > 0 && c.PublishTimeout > 0, "timeouts must be positive")
	return errors.Join(problems...)
}

type nopObserver struct{}

func (nopObserver) StateChanged(State, State, *Problem)       {}
func (nopObserver) Received(ReceivedCounts)                   {}
func (nopObserver) Recorded(*Batch, time.Duration, time.Time) {}
func (nopObserver) Failed(*Problem)                           {}
