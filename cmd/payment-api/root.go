package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/payment"
)

// The exit codes; users' service managers depend on them.
const (
	exitFine    = 0
	exitFailure = 1 // a restart may cure it
	exitUsage   = 2 // usage or configuration
	exitPending = 3 // migrate status found something to do
	exitPerson  = 5 // needs a person; restarting does not help
	exitForced  = 130
)

// usageError is a wrong command line or a wrong setting.
type usageError struct{ error }

// errPending is the exit code of migrate status, which has printed its finding.
var errPending = errors.New("migrations are pending")

// program is one execution of the command line.
type program struct {
	stdout, stderr io.Writer
	env            []string
	settings       settings
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
	if !errors.Is(err, errPending) {
		fmt.Fprintf(p.stderr, "payment-api: %v\n", err)
	}
	code := exitCode(err)
	if code == exitUsage {
		fmt.Fprintln(p.stderr, "Run 'payment-api --help' for usage.")
	}
	return code
}

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*payment.RolesNotMade](err); ok {
		return exitPerson
	}
	if errors.Is(err, errPending) {
		return exitPending
	}
	return exitFailure
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "payment-api",
		Short: "Take payments of seat reservations and publish them through an outbox",
		Long: `payment-api takes payments of seat reservations over HTTP and writes an outbox
row for each in the same transaction. cdc-relay brings the rows to Kafka.

Every flag has an environment variable: PAYMENT_API_ and the flag's name in
capitals, such as PAYMENT_API_RELAY_URL. A flag overrides its variable. The DSN
is a secret: it comes from a file (--dsn-file) or from PAYMENT_API_DSN.

Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
configuration, 3 migrations are pending, 5 needs a person, 130 forced by a
second Ctrl-C.`,
		Example: `  PAYMENT_API_DSN=postgres://owner@db/app payment-api migrate up
  PAYMENT_API_DSN=postgres://payment_app@db/app payment-api`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { p.began = true; return nil },
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	serve := p.serveCommand()
	root.RunE = serve.RunE
	p.settings.addTo(root.PersistentFlags())
	root.AddCommand(serve, p.migrateCommand(), p.versionCommand())
	return root
}
