package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/cdc-relay/cdc-relay/cdc/kafka"
	"github.com/cdc-relay/cdc-relay/cdc/postgres"
)

// askTimeout bounds one question to a relay or a server.
const askTimeout = 10 * time.Second

func (p *program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show state, lag, slot and position; exit 0 healthy, 3 unhealthy",
		Long: `Show state, lag, slot and position.

Asks the running relay's admin port. Where none answers, it reads the slot from
Postgres and the position from Kafka and says so. Exit code 0 means healthy, 3
unhealthy.`,
		Args: cobra.NoArgs,
	}
	p.configFlagsFor(cmd.Flags())
	output := outputFlag(cmd)
	addr := cmd.Flags().String("addr", "", "admin `ADDRESS` of the relay; default admin.listen")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.config()
		if err != nil {
			return err
		}
		report, err := relayReport(cmd.Context(), adminAddress(c, *addr))
		if err != nil {
			fmt.Fprintf(p.stderr, "cdc-relay: no relay answers at %s; asking Postgres and Kafka\n", adminAddress(c, *addr))
			if report, err = serverReport(cmd.Context(), c); err != nil {
				return errors.Join(err, errUnhealthy)
			}
		}
		if *output == outputJSON {
			err = p.printJSON(report)
		} else {
			report.print(p.stdout)
		}
		if err == nil && !report.Healthy {
			err = errUnhealthy
		}
		return err
	}
	return cmd
}

// adminAddress is where this host reaches the admin port.
func adminAddress(c *loadedConfig, flag string) string {
	address := c.Admin.Listen
	if flag != "" {
		address = flag
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// adminGet asks the admin port. The client is made for the one question and
// ignores proxies of the environment.
func adminGet(ctx context.Context, address, path string, query url.Values, timeout time.Duration) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	target := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, adminAnswerBytes))
	return response.StatusCode, body, err
}

// adminAnswerBytes bounds what is read of an answer, whoever gave it.
const adminAnswerBytes = 1 << 20

func relayReport(ctx context.Context, address string) (*statusReport, error) {
	code, body, err := adminGet(ctx, address, "/status", nil, askTimeout)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("status of the relay at %s: HTTP %d", address, code)
	}
	var report statusReport
	if err := json.Unmarshal(body, &report); err != nil {
		return nil, fmt.Errorf("status of the relay at %s: %w", address, err)
	}
	if report.From == "" {
		return nil, fmt.Errorf("what listens at %s is no cdc-relay", address)
	}
	return &report, nil
}

func serverReport(ctx context.Context, c *loadedConfig) (*statusReport, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	monitor, err := postgres.NewMonitor(postgresConfig(c, nil, nil))
	if err != nil {
		return nil, err
	}
	defer monitor.Close()
	stats, err := monitor.SlotStats(ctx)
	if err != nil {
		return nil, err
	}
	sink, err := kafka.New(kafkaConfig(c, nil))
	if err != nil {
		return nil, err
	}
	facts, err := sink.Advise(ctx)
	if err != nil {
		return nil, err
	}
	return newServerReport(c, stats, facts.Record), nil
}
