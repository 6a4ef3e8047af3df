package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func (p *program) waitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait --lsn LSN",
		Short: "Wait until everything committed up to an LSN is in Kafka; exit 0 or 3",
		Long: `Wait until everything that was committed up to an LSN is in Kafka.

An application that wants to know about a row it can see asks with
pg_current_wal_insert_lsn(). Exit code 0 means published, 3 not within the
timeout.`,
		Example: `  cdc-relay wait --lsn "$(psql -Atc 'SELECT pg_current_wal_insert_lsn()')" --timeout 30s`,
		Args:    cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	lsnText := cmd.Flags().String("lsn", "", "`LSN` as Postgres prints it, such as 16/B374D848 (required)")
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "how long to wait")
	addr := cmd.Flags().String("addr", "", "admin `ADDRESS` of the relay; default admin.listen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *lsnText == "" {
			return &usageError{text: "--lsn is required"}
		}
		lsn, err := cdc.ParseLSN(*lsnText)
		if err != nil {
			return &usageError{text: "--lsn: " + err.Error()}
		}
		if *timeout < 0 {
			return &usageError{text: "--timeout is negative"}
		}
		c, err := p.config()
		if err != nil {
			return err
		}
		answer, err := awaitPublished(cmd.Context(), adminAddress(c, *addr), lsn, *timeout)
		if err != nil {
			return errors.Join(err, errUnhealthy)
		}
		if *output == outputJSON {
			err = p.printJSON(answer)
		} else if answer.Published {
			fmt.Fprintf(p.stdout, "everything up to %s is in Kafka\n", lsn)
		} else {
			fmt.Fprintf(p.stdout, "not everything up to %s is in Kafka (the relay is %s)\n", lsn, answer.State)
		}
		if err == nil && !answer.Published {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}

// awaitPublished asks until the answer is yes or the timeout has passed. A
// relay that does not answer is asked again: it may be restarting.
func awaitPublished(ctx context.Context, address string, lsn cdc.LSN, timeout time.Duration) (*publishedAnswer, error) {
	const pause = 200 * time.Millisecond
	deadline := time.Now().Add(timeout)
	for {
		answer, err := askPublished(ctx, address, lsn, min(time.Until(deadline), maxPublishedWait))
		switch {
		case err == nil && (answer.Published || time.Until(deadline) <= 0):
			return answer, nil
		case errors.As(err, new(*cdc.Problem)):
			return nil, err
		case err != nil && time.Until(deadline) <= pause:
			return nil, &cdc.Problem{
				What: "no relay answers at " + address, Err: err,
				Fix: "start the relay, or name its admin port with --addr",
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", lsn, ctx.Err())
		case <-time.After(min(pause, max(0, time.Until(deadline)))):
		}
	}
}

func askPublished(ctx context.Context, address string, lsn cdc.LSN, timeout time.Duration) (*publishedAnswer, error) {
	timeout = max(0, timeout)
	query := url.Values{"lsn": {lsn.String()}, "timeout": {timeout.String()}}
	code, body, err := adminGet(ctx, address, "/published", query, timeout+askTimeout)
	if err != nil {
		return nil, err
	}
	var answer publishedAnswer
	if code != http.StatusOK && code != http.StatusAccepted || json.Unmarshal(body, &answer) != nil {
		return nil, &cdc.Problem{
			What: "what listens at " + address + " is no cdc-relay of this version", Why: fmt.Sprintf("HTTP %d", code),
			Fix: "name the relay's admin port with --addr",
		}
	}
	return &answer, nil
}
