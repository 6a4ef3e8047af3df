package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// rangeFlags choose a part of the outbox.
type rangeFlags struct {
	since string
	from  string
	to    string
}

func (f *rangeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "rows whose id (UUIDv7) was made since a `TIME`: an age such as 24h, or RFC 3339")
	cmd.Flags().StringVar(&f.from, "from", "", "rows from this `ID` on")
	cmd.Flags().StringVar(&f.to, "to", "", "rows below this `ID`")
}

func (f *rangeFlags) parse(now time.Time) (in audit.Range, err error) {
	if f.since != "" && f.from != "" {
		return in, &usageError{text: "--since and --from are two ways to say where to begin: use one"}
	}
	if f.since != "" {
		since, err := parseSince(f.since, now)
		if err != nil {
			return in, err
		}
		in.From = audit.IDAt(since)
	}
	for _, bound := range []struct {
		flag, text string
		into       *audit.ID
	}{{"--from", f.from, &in.From}, {"--to", f.to, &in.To}} {
		if bound.text == "" {
			continue
		}
		if *bound.into, err = audit.ParseID([]byte(bound.text)); err != nil {
			return in, &usageError{text: fmt.Sprintf("%s: %v", bound.flag, err)}
		}
	}
	return in, nil
}

// parseSince reads an age or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	since, err := time.Parse(time.RFC3339, text)
	if err != nil || since.After(now) {
		return since, &usageError{text: fmt.Sprintf("--since: %q is neither an age such as 24h nor a past time such as 2026-03-01T00:00:00Z", text)}
	}
	return since, nil
}
