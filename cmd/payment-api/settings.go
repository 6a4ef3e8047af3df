package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/pflag"

	"github.com/cdc-relay/cdc-relay/payment"
)

// settings are the flags. Zero durations leave the choice to package payment.
type settings struct {
	listen, adminListen string
	dsnFile             string
	relayURL, keysFile  string
	maxConnections      int32
	maxInFlight         int
	lockTimeout         time.Duration
	requestTimeout      time.Duration
	keyRetention        time.Duration
	reservationTTL      time.Duration
	drainDelay          time.Duration
	drainTimeout        time.Duration
	logLevel, logFormat string
	dsn                 string // from the environment or the file
}

const (
	envPrefix = "PAYMENT_API_"
	envDSN    = envPrefix + "DSN"
)

func (s *settings) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&s.dsnFile, "dsn-file", "", "`FILE` with the connection string of Postgres")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the API")
	flags.StringVar(&s.adminListen, "admin-listen", "127.0.0.1:9791", "`ADDRESS` of /metrics, /livez and /readyz")
	flags.StringVar(&s.relayURL, "relay-url", "", "`URL` of the relay's admin port, to tell which events are published; empty: unknown")
	flags.StringVar(&s.keysFile, "api-keys-file", "", "`FILE` with one NAME KEY per line; empty: everybody may call")
	flags.Int32Var(&s.maxConnections, "max-connections", 16, "connections to Postgres at most")
	flags.IntVar(&s.maxInFlight, "max-in-flight", 512, "requests worked on at once; more are answered 503")
	flags.DurationVar(&s.lockTimeout, "lock-timeout", 2*time.Second, "how long a request waits for another one that holds its rows or its key")
	flags.DurationVar(&s.requestTimeout, "request-timeout", 10*time.Second, "how long a request may take")
	flags.DurationVar(&s.keyRetention, "key-retention", 7*24*time.Hour, "how long the answer to an Idempotency-Key is kept")
	flags.DurationVar(&s.reservationTTL, "reservation-ttl", 15*time.Minute, "how long a reservation can be paid that names no end")
	flags.DurationVar(&s.drainDelay, "drain-delay", 0, "how long to serve on after a signal while /readyz fails already, for load balancers to notice")
	flags.DurationVar(&s.drainTimeout, "drain-timeout", 20*time.Second, "how long requests in flight may take after that")
	flags.StringVar(&s.logLevel, "log-level", "info", "lowest `LEVEL` to log: debug, info, warn or error")
	flags.StringVar(&s.logFormat, "log-format", "auto", "`FORMAT` of the log: auto, text or json")
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// load fills in the environment and the secrets, and returns everything that is
// wrong at once. Values of secrets are in no error.
func (s *settings) load(flags *pflag.FlagSet, env []string, warnings io.Writer) error {
	var problems []error
	known := map[string]*pflag.Flag{}
	flags.VisitAll(func(f *pflag.Flag) { known[envName(f.Name)] = f })
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if name == envDSN {
			s.dsn = value
			continue
		}
		f := known[name]
		if f == nil || f.Name == "help" {
			fmt.Fprintf(warnings, "payment-api: warning: %s is no setting\n", name)
			continue
		}
		if f.Changed {
			continue // the flag wins
		}
		if err := f.Value.Set(value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	problems = append(problems, s.loadDSN(), s.check())
	if err := errors.Join(problems...); err != nil {
		return usageError{err}
	}
	return nil
}

func (s *settings) loadDSN() error {
	switch {
	case s.dsnFile != "" && s.dsn != "":
		return fmt.Errorf("both --dsn-file and %s are set: want one of them", envDSN)
	case s.dsnFile == "" && s.dsn == "":
		return fmt.Errorf("no connection string: set --dsn-file or %s", envDSN)
	case s.dsnFile != "":
		text, err := os.ReadFile(s.dsnFile)
		if err != nil {
			return fmt.Errorf("--dsn-file: %w", err)
		}
		s.dsn = strings.TrimSpace(string(text))
	}
	if _, err := pgxpool.ParseConfig(s.dsn); err != nil {
		return errors.New("the connection string cannot be read: want postgres://user:password@host/database or key=value pairs")
	}
	return nil
}

func (s *settings) check() error {
	var problems []error
	atLeast := func(name string, value, least int64, text string) {
		if value < least {
			problems = append(problems, fmt.Errorf("--%s: want at least %s", name, text))
		}
	}
	atLeast("max-connections", int64(s.maxConnections), 1, "1")
	atLeast("max-in-flight", int64(s.maxInFlight), 1, "1")
	atLeast("lock-timeout", int64(s.lockTimeout), int64(time.Millisecond), "1ms")
	atLeast("request-timeout", int64(s.requestTimeout), int64(s.lockTimeout)+1, "more than --lock-timeout")
	atLeast("key-retention", int64(s.keyRetention), int64(s.requestTimeout)+1, "more than --request-timeout")
	atLeast("reservation-ttl", int64(s.reservationTTL), 1, "1ns")
	atLeast("drain-delay", int64(s.drainDelay), 0, "0s")
	atLeast("drain-timeout", int64(s.drainTimeout), 1, "1ns")
	for name, address := range map[string]string{"listen": s.listen, "admin-listen": s.adminListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			problems = append(problems, fmt.Errorf("--%s: want host:port", name))
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.logLevel) {
		problems = append(problems, errors.New("--log-level: want debug, info, warn or error"))
	}
	if !slices.Contains([]string{"auto", "text", "json"}, s.logFormat) {
		problems = append(problems, errors.New("--log-format: want auto, text or json"))
	}
	return errors.Join(problems...)
}

// apiKeys reads the key file; nil without one.
func (s *settings) apiKeys() (*payment.APIKeys, error) {
	if s.keysFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.keysFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--api-keys-file: %w", err)}
	}
	keys, err := payment.ParseAPIKeys(string(text))
	if err != nil {
		return nil, usageError{fmt.Errorf("--api-keys-file: %w", err)}
	}
	return keys, nil
}

// relay returns nil without a URL.
func (s *settings) relay() (*payment.Relay, error) {
	if s.relayURL == "" {
		return nil, nil
	}
	relay, err := payment.NewRelay(s.relayURL)
	if err != nil {
		return nil, usageError{fmt.Errorf("--relay-url: %w", err)}
	}
	return relay, nil
}
