package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// healthcheckTimeout is below the usual timeout of a container's health check.
const healthcheckTimeout = 3 * time.Second

func (p *program) healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running relay's /livez, for containers without a shell; exit 0 or 3",
		Args:  cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	addr := cmd.Flags().String("addr", "", "admin `ADDRESS` of the relay; default admin.listen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		address := *addr
		if address == "" {
			c, err := p.config()
			if err != nil {
				return err
			}
			address = adminAddress(c, "")
		}
		code, body, err := adminGet(cmd.Context(), address, "/livez", nil, healthcheckTimeout)
		if err != nil {
			return errors.Join(&cdc.Problem{What: "no relay answers at " + address, Err: err, Fix: "start the relay, or name its admin port with --addr"}, errUnhealthy)
		}
		fmt.Fprintln(p.stdout, strings.TrimSpace(string(body)))
		if code != http.StatusOK {
			return errUnhealthy
		}
		return nil
	}
	return cmd
}
