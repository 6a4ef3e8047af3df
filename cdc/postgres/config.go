package postgres

import (
	"context"
	"log/slog"
	"net"
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
