package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"
)

// Config says where the outbox is and how to reach it. It has no defaults
// beside those named here.
type Config struct {
	// DSN returns the connection string, read anew at every connect so that a
	// rotated password file is picked up. Required.
	DSN func() (string, error)
	// AllowInsecure permits sslmodes weaker than verify-full over TCP to hosts
	// other than loopback.
	AllowInsecure bool
	// ApplicationName is what DBAs see in pg_stat_activity; default cdc-relay.
	ApplicationName string

	Slot        string // matches ^[a-z0-9_]{1,63}$
	Publication string
	Table       string // schema.table
	IDColumn    string // becomes Row.EventID; default id
	// RequiredColumns are those that the record format needs; a missing one is
	// found by Inspect.
	RequiredColumns []string

	// GuardInterval is the time between two looks at publication and table while
	// streaming; default 2 s.
	GuardInterval time.Duration
	// ConnectTimeout bounds one connection attempt; default 10 s.
	ConnectTimeout time.Duration
	// Dial replaces the network dialer, for tests; nil is net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger: nil discards.
	Logger *slog.Logger
}

const (
	defaultApplicationName = "cdc-relay"
	defaultIDColumn        = "id"
	defaultGuardInterval   = 2 * time.Second
)

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// withDefaults returns the config with its defaults, or all that is wrong with it.
func (cfg Config) withDefaults() (Config, error) {
	var errs []error
	if cfg.DSN == nil {
		errs = append(errs, errors.New("postgres: DSN is required"))
	}
	if !slotName.MatchString(cfg.Slot) {
		errs = append(errs, fmt.Errorf("postgres: slot %q: want 1 to 63 of a-z, 0-9 and _", cfg.Slot))
	}
	if err := checkIdentifier(cfg.Publication); err != nil {
		errs = append(errs, fmt.Errorf("postgres: publication %q: %w", cfg.Publication, err))
	}
	if _, _, err := splitTable(cfg.Table); err != nil {
		errs = append(errs, fmt.Errorf("postgres: table %q: %w", cfg.Table, err))
	}
	for name, d := range map[string]time.Duration{"guard interval": cfg.GuardInterval, "connect timeout": cfg.ConnectTimeout} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("postgres: %s %s is negative", name, d))
		}
	}
	if cfg.IDColumn == "" {
		cfg.IDColumn = defaultIDColumn
	}
	if cfg.GuardInterval == 0 {
		cfg.GuardInterval = defaultGuardInterval
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, errors.Join(errs...)
}

func checkIdentifier(name string) error {
	if name == "" || len(name) > 63 || strings.IndexByte(name, 0) >= 0 {
		return errors.New("want a name of 1 to 63 bytes")
	}
	return nil
}

// splitTable takes schema.table apart at its first dot; both parts are literal.
func splitTable(table string) (schema, name string, err error) {
	schema, name, ok := strings.Cut(table, ".")
	if !ok || checkIdentifier(schema) != nil || checkIdentifier(name) != nil {
		return "", "", errors.New("want schema.table")
	}
	return schema, name, nil
}

// dial is the dialer of every connection but the stream's.
func (cfg *Config) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return cfg.dialWith(ctx, network, addr, nil)
}

// dialWith lets control have the socket before it is connected.
func (cfg *Config) dialWith(ctx context.Context, network, addr string, control socketControl) (net.Conn, error) {
	if cfg.Dial != nil {
		return cfg.Dial(ctx, network, addr)
	}
	return (&net.Dialer{KeepAlive: 15 * time.Second, Control: control}).DialContext(ctx, network, addr)
}
