package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// program is one execution of the command line.
type program struct {
	stdout, stderr io.Writer
	env            []string

	flags configFlags
	// began is set when a command's own work starts; every error before it is a
	// wrong command line.
	began bool
}

// configFlags are the flags of every command that needs the configuration.
type configFlags struct {
	file      string
	set       []string
	logLevel  string
	logFormat string
}

func (p *program) execute(ctx context.Context, args []string) int {
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitFine
	}
	if !p.began {
		err = &usageError{text: err.Error()}
	}
	printError(p.stderr, err, isTerminal(p.stderr) && p.getenv("NO_COLOR") == "")
	if _, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintln(p.stderr, "Run 'cdc-relay --help' for usage.")
	}
	return exitCode(err)
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cdc-relay",
		Short: "Relay outbox rows from the Postgres WAL to Kafka, exactly once and in commit order",
		Long: `cdc-relay reads committed inserts into an outbox table out of the Postgres WAL
and writes them to Kafka exactly once, in commit order.

Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
configuration, 3 unhealthy or check failed, 4 an audit found a difference, 5
needs a person, 130 forced by a second Ctrl-C.`,
		Example: `  cdc-relay config example > relay.yaml
  cdc-relay init --config relay.yaml --apply
  cdc-relay check --config relay.yaml
  cdc-relay run --config relay.yaml`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(*cobra.Command, []string) error { p.began = true; return nil },
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.AddCommand(p.runCommand(), p.initCommand(), p.checkCommand(), p.statusCommand(), p.waitCommand(), p.auditCommand(), p.backfillCommand(), p.outboxCommand(), p.skipCommand(), p.adoptCommand(), p.resyncCommand(), p.parkedCommand(), p.healthcheckCommand(), p.configCommand(), p.versionCommand())
	root.InitDefaultCompletionCmd()
	return root
}

// configFlagsFor adds the flags that say where the configuration is.
func (p *program) configFlagsFor(flags *pflag.FlagSet) {
	flags.StringVarP(&p.flags.file, "config", "c", "", "configuration `FILE` (environment variable "+envConfig+")")
	flags.StringArrayVar(&p.flags.set, "set", nil, "set one `PATH=VALUE` of the configuration, such as postgres.slot=orders; repeatable")
	flags.StringVar(&p.flags.logLevel, "log-level", "", "lowest `LEVEL` to log: debug, info, warn or error; stands for --set log.level")
	flags.StringVar(&p.flags.logFormat, "log-format", "", "`FORMAT` of the log: auto, text or json; stands for --set log.format")
}

// config loads the configuration; warnings go to stderr.
func (p *program) config() (*loadedConfig, error) {
	in := configInput{file: p.flags.file, env: p.env, set: p.flags.set}
	if in.file == "" {
		in.file = p.getenv(envConfig)
	}
	if p.flags.logLevel != "" {
		in.set = append(in.set, "log.level="+p.flags.logLevel)
	}
	if p.flags.logFormat != "" {
		in.set = append(in.set, "log.format="+p.flags.logFormat)
	}
	c, err := loadConfig(in)
	for _, warning := range c.warnings {
		fmt.Fprintf(p.stderr, "cdc-relay: warning: %s\n", warning)
	}
	return c, err
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

// The output formats.
const (
	outputText = "text"
	outputJSON = "json"
)

// outputFormat is the value of -o.
type outputFormat string

func (o *outputFormat) String() string { return string(*o) }
func (o *outputFormat) Type() string   { return "FORMAT" }
func (o *outputFormat) Set(s string) error {
	if s != outputText && s != outputJSON {
		return fmt.Errorf("want text or json")
	}
	*o = outputFormat(s)
	return nil
}

// outputFlag adds -o to a command that prints data.
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
