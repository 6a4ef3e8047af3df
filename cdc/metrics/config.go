package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Config says what to observe and where to register it.
type Config struct {
	// Registerer is where New registers the metrics. Required.
	Registerer prometheus.Registerer
	// Slot is the label of every metric but build_info. Required.
	Slot string
	// Status is the relay's picture of itself. It must not block and is called
	// at every scrape and at every recorded batch, never by New. Required.
	Status func() cdc.Status
	// SlotStats reads the slot, from any replica; it returns soon after its ctx
	// ends. nil: there are no slot_ metrics.
	SlotStats func(context.Context) (cdc.SlotStats, error)
	// Version and Revision are labels of build_info; empty is "unknown".
	Version, Revision string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (c *Config) validate() error {
	var problems []error
	if c.Registerer == nil {
		problems = append(problems, errors.New("metrics: Registerer is missing"))
	}
	if c.Slot == "" {
		problems = append(problems, errors.New("metrics: Slot is missing"))
	}
	if c.Status == nil {
		problems = append(problems, errors.New("metrics: Status is missing"))
	}
	return errors.Join(problems...)
}

func (c *Config) setDefaults() {
	if c.Version == "" {
		c.Version = "unknown"
	}
	if c.Revision == "" {
		c.Revision = "unknown"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}
