package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// checkTimeout bounds all checks of one side together.
const checkTimeout = 30 * time.Second

// finding is one element of `check -o json`, a contract.
type finding struct {
	Name    string `json:"name"`  // config, postgres: ..., kafka: ...
	Level   string `json:"level"` // ok, warn, fail, skipped
	Problem string `json:"problem,omitempty"`
	Why     string `json:"why,omitempty"`
	Fix     string `json:"fix,omitempty"`
}

func (p *program) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, Postgres and Kafka without changing anything; exit 3 if a check fails",
		Args:  cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	strict := cmd.Flags().Bool("strict", false, "let warnings fail too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		findings, err := check(cmd.Context(), c)
		if err != nil {
			return err
		}
		if *output == outputJSON {
			err = p.printJSON(findings)
		} else {
			printFindings(p.stdout, findings)
		}
		if err == nil && anyFails(findings, *strict) {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}

// check asks both sides at the same time. It never stops at the first finding.
func check(ctx context.Context, c *loadedConfig) ([]finding, error) {
	router, err := newRouter(c)
	if err != nil {
		return nil, err
	}
	source, err := postgres.New(postgresConfig(c, router.RequiredColumns(), nil))
	if err != nil {
		return nil, err
	}
	defer source.Close()
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	fromKafka := make(chan []kafka.Finding, 1)
	go func() { fromKafka <- sink.Check(ctx, exactTopics(c)) }()
	findings := []finding{{Name: "config", Level: kafka.LevelOK, Problem: "valid"}}
	for _, f := range source.Check(ctx) {
		findings = append(findings, finding{Name: "postgres: " + f.Name, Level: string(f.Level), Problem: f.Problem, Why: f.Why, Fix: f.Fix})
	}
	for _, f := range <-fromKafka {
		findings = append(findings, finding{Name: "kafka: " + f.Name, Level: f.Level, Problem: f.Problem, Why: f.Why, Fix: f.Fix})
	}
	return findings, nil
}

func anyFails(findings []finding, strict bool) bool {
	for _, f := range findings {
		if f.Level == kafka.LevelFail || strict && f.Level == kafka.LevelWarn {
			return true
		}
	}
	return false
}

func printFindings(w io.Writer, findings []finding) {
	counts := map[string]int{}
	for _, f := range findings {
		counts[f.Level]++
		fmt.Fprintf(w, "%-8s %s", f.Level, f.Name)
		if f.Problem != "" {
			fmt.Fprintf(w, ": %s", f.Problem)
		}
		fmt.Fprintln(w)
		if f.Level == kafka.LevelOK {
			continue
		}
		if f.Why != "" {
			fmt.Fprintf(w, "         why: %s\n", f.Why)
		}
		if f.Fix != "" {
			fmt.Fprintf(w, "         fix: %s\n", f.Fix)
		}
	}
	fmt.Fprintf(w, "%d ok, %d warnings, %d failed, %d skipped\n", counts[kafka.LevelOK], counts[kafka.LevelWarn], counts[kafka.LevelFail], counts[kafka.LevelSkipped])
}
