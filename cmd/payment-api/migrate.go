package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/payment"
	"github.com/cdc-relay/cdc-relay/sql"
)

func (p *program) migrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Make and update the tables",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	migrate.AddCommand(p.migrateUpCommand(), p.migrateStatusCommand())
	return migrate
}

func (p *program) migrateUpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Make what is not there yet: tables, outbox, roles",
		Long: `Make what is not there yet: the service's tables, the outbox, and the roles as
far as the role of the connection string may make them. Safe to repeat, and to
run several times at once. Publication, slot and topics are made by
'cdc-relay init'.

Run it as the owner of the tables, not as payment_app. When only the roles are
missing it says so and ends with exit code 5.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.migrateConfig(cmd)
			if err != nil {
				return err
			}
			done, err := payment.MigrateUp(cmd.Context(), cfg)
			for _, m := range done {
				fmt.Fprintf(p.stdout, "applied %d %s\n", m.Version, m.Name)
			}
			if err == nil && len(done) == 0 {
				fmt.Fprintln(p.stdout, "nothing to do")
			}
			return err
		},
	}
}

func (p *program) migrateStatusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the migrations; exit code 3 when some are pending",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "text" && output != "json" {
			return usageError{fmt.Errorf("-o: want text or json")}
		}
		cfg, err := p.migrateConfig(cmd)
		if err != nil {
			return err
		}
		states, err := payment.MigrateStatus(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		return p.printStates(states, output)
	}
	return cmd
}

// printStates prints the migrations and returns errPending if there is work.
func (p *program) printStates(states []payment.MigrationState, output string) error {
	var result error
	for _, m := range states {
		if m.AppliedAt.IsZero() {
			result = errPending
		}
	}
	if output == "json" {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(states); err != nil {
			return err
		}
		return result
	}
	for _, m := range states {
		when := "pending"
		if !m.AppliedAt.IsZero() {
			when = m.AppliedAt.Format(time.RFC3339)
		}
		fmt.Fprintf(p.stdout, "%-20s  %d  %s\n", when, m.Version, m.Name)
	}
	return result
}

func (p *program) migrateConfig(cmd *cobra.Command) (payment.MigrateConfig, error) {
	if err := p.settings.load(cmd.Flags(), p.env, p.stderr); err != nil {
		return payment.MigrateConfig{}, err
	}
	outboxSQL, err := sql.Outbox(sql.DefaultTable)
	if err != nil {
		return payment.MigrateConfig{}, err
	}
	rolesSQL, err := sql.Roles(sql.DefaultTable)
	if err != nil {
		return payment.MigrateConfig{}, err
	}
	return payment.MigrateConfig{DSN: p.settings.dsn, OutboxSQL: outboxSQL, RolesSQL: rolesSQL, Logger: p.settings.logger(p.stderr)}, nil
}
