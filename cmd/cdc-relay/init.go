package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// initOptions are the flags of init.
type initOptions struct {
	apply     bool
	withTable bool
}

// step is the outcome of one step of init, an element of `init -o json`.
type step struct {
	Name    string `json:"name"`    // what it is about, with its name
	Outcome string `json:"outcome"` // created or already there
}

// The outcomes of a step.
const (
	outcomeCreated = "created"
	outcomeThere   = "already there"
)

func (p *program) initCommand() *cobra.Command {
	var options initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Print, or with --apply do, what makes a new relay: topics, publication, slot, first position",
		Long: `Make what a new relay needs.

Without --apply, prints commented SQL and Kafka commands, grouped by who must
run them. With --apply, does what is missing in the order that is safe: position
topic, topics, a position record "initialising", publication, slot, the position
record "running" at the slot's consistent point. What exists is left as it is, so
the command may be repeated.

Publication and table are made with postgres.admin_dsn where it is set, the slot
with postgres.dsn.`,
		Example: `  cdc-relay init --config relay.yaml
  cdc-relay init --config relay.yaml --apply --with-table`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&options.apply, "apply", false, "do it instead of printing it")
	cmd.Flags().BoolVar(&options.withTable, "with-table", false, "make the outbox table too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output == outputJSON && !options.apply {
			return &usageError{text: "-o json goes with --apply; what is printed without it is a script"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		if options.withTable && len(c.Postgres.Columns) > 0 {
			return &usageError{text: "--with-table makes a table with the default column names; it does not go with postgres.columns"}
		}
		if !options.apply {
			return printInit(p.stdout, c, options)
		}
		return p.applyInit(cmd.Context(), c, options, *output)
	}
	return cmd
}

func (p *program) applyInit(ctx context.Context, c *loadedConfig, options initOptions, output outputFormat) error {
	g, err := newGenesis(c, newLogger(&c.Log, p.stderr), options)
	if err != nil {
		return err
	}
	defer g.close()
	steps := []step{}
	err = g.apply(ctx, func(s step) {
		steps = append(steps, s)
		if output == outputText {
			fmt.Fprintf(p.stdout, "%-14s %s\n", s.Outcome, s.Name)
		}
	})
	if output == outputJSON {
		if printErr := p.printJSON(steps); err == nil {
			err = printErr
		}
	}
	return err
}
