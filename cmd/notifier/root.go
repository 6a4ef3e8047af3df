package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/notifier"
)

// program is one execution of the command line.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string

	configFile string
	// began is set when a command's own work starts; every error before it is a
	// wrong command line.
	began bool
}

func (p *program) execute(ctx context.Context, args []string) int {
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitFine
	}
	if !p.began {
		err = usageError{err}
	}
	printError(p.stderr, err)
	if !p.began {
		fmt.Fprintln(p.stderr, "Run 'notifier --help' for usage.")
	}
	return exitCode(err)
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "notifier",
		Short: "Tell payment events in a Slack channel",
		Long: `notifier consumes payment events and posts each one once to a Slack incoming
webhook. An inbox table in Postgres remembers what was posted; what can never be
a message goes to a dead letter topic.

Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
configuration, 5 needs a person, 130 forced by a second Ctrl-C.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(*cobra.Command, []string) error { p.began = true; return nil },
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.PersistentFlags().StringVarP(&p.configFile, "config", "c", "", "configuration `FILE` (environment variable "+envConfig+"); every setting is also "+envPrefix+"<PATH>")
	root.AddCommand(p.runCommand(), p.migrateCommand(), p.sendTestCommand(), p.renderCommand(), p.dlqCommand(), p.configCommand(), p.versionCommand())
	root.InitDefaultCompletionCmd()
	return root
}

func (p *program) getenv(name string) string {
	value := ""
	for _, entry := range p.env {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

// config reads the configuration; its errors are the user's.
func (p *program) config() (*Config, error) {
	file := p.configFile
	if file == "" {
		file = p.getenv(envConfig)
	}
	c, err := loadConfig(file, p.env)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// withNotifier lends a notifier that is not running.
func (p *program) withNotifier(ctx context.Context, do func(n *notifier.Notifier) error) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	pool, err := c.pool(ctx)
	if err != nil {
		return usageError{err}
	}
	defer pool.Close()
	n, err := c.notifier(pool, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return usageError{err}
	}
	return do(n)
}

func (p *program) withPool(ctx context.Context, do func(pool *pgxpool.Pool) error) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	pool, err := c.pool(ctx)
	if err != nil {
		return usageError{err}
	}
	defer pool.Close()
	return do(pool)
}

// outputFormat is the value of -o.
type outputFormat string

const (
	outputText = "text"
	outputJSON = "json"
)

func (o *outputFormat) String() string { return string(*o) }
func (o *outputFormat) Type() string   { return "FORMAT" }
func (o *outputFormat) Set(s string) error {
	if s != outputText && s != outputJSON {
		return fmt.Errorf("want text or json")
	}
	*o = outputFormat(s)
	return nil
}

func outputFlag(cmd *cobra.Command) *outputFormat {
	o := outputFormat(outputText)
	cmd.Flags().VarP(&o, "output", "o", "text or json")
	return &o
}

func (p *program) printJSON(v any) error {
	encoder := json.NewEncoder(p.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
