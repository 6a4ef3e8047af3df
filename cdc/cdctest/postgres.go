package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// MajorVariable chooses the PostgreSQL of SharedPostgres: a major, or 0 for the
// highest one found, else an embedded one.
const MajorVariable = "CDC_TEST_POSTGRES_MAJOR"

// Postgres is a PostgresServer in the hands of tests: what fails, fails the
// test.
type Postgres struct {
	server *PostgresServer
}

// StartPostgres starts a cluster of the test's own, removed with the test.
func StartPostgres(t testing.TB, cfg PostgresConfig) *Postgres {
	t.Helper()
	server, err := runPostgres(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return startedForTest(t, server)
}

// runPostgres makes a cluster and starts it; again on another port if this one
// was taken meanwhile.
func runPostgres(cfg PostgresConfig) (*PostgresServer, error) {
	for {
		server, err := NewPostgresServer(cfg)
		if err != nil {
			return nil, err
		}
		if err = server.Start(context.Background()); err == nil {
			return server, nil
		}
		removeErr := server.Remove()
		if err = errors.Join(err, removeErr); !anyTaken(loopback(server.port)) {
			return nil, err
		}
	}
}

// SharedPostgres returns the cluster of this test binary, started by the first
// caller and removed by Main. Tests that stop or configure the server use
// StartPostgres instead.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	t.Cleanup(func() {
		if t.Failed() && shared.postgres != nil {
			t.Logf("log of PostgreSQL on port %d ends:\n%s", shared.postgres.port, logTail(shared.postgres.LogPath()))
		}
	})
	if shared.postgres != nil {
		return &Postgres{server: shared.postgres}
	}
	major, err := sharedMajor()
	if err != nil {
		t.Fatal(err)
	}
	server, err := runPostgres(PostgresConfig{Major: major})
	if err != nil {
		t.Fatal(err)
	}
	shared.postgres = server
	return &Postgres{server: server}
}

// sharedMajor reads MajorVariable.
func sharedMajor() (int, error) {
	value := os.Getenv(MajorVariable)
	if value == "" {
		return 0, nil
	}
	major, err := strconv.Atoi(value)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", MajorVariable, err)
	}
	return major, nil
}

// Server returns the server itself.
func (p *Postgres) Server() *PostgresServer { return p.server }

// Major returns the server's major version.
func (p *Postgres) Major() int { return p.server.Major() }

// Port returns the TCP port on 127.0.0.1.
func (p *Postgres) Port() int { return p.server.Port() }

// DSN returns a connection string over TCP. The superuser is postgres; every
// role is trusted until RequirePassword.
func (p *Postgres) DSN(database, user string) string { return p.server.DSN(database, user) }

// SocketDSN returns a connection string over the Unix socket.
func (p *Postgres) SocketDSN(database, user string) string { return p.server.SocketDSN(database, user) }

// DataDir returns the data directory.
func (p *Postgres) DataDir() string { return p.server.DataDir() }

// BinDir returns where initdb and postgres are.
func (p *Postgres) BinDir() string { return p.server.BinDir() }

// Stop stops the server by pg_ctl's mode smart, fast or immediate, and returns
// when it is down.
func (p *Postgres) Stop(t testing.TB, mode string) {
	t.Helper()
	if err := p.server.Stop(StopMode(mode)); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again, on the same data directory and port.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	if err := p.server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Restart is Stop and Start.
func (p *Postgres) Restart(t testing.TB, mode string) {
	t.Helper()
	p.Stop(t, mode)
	p.Start(t)
}

// Connect returns a connection as superuser, closed with the test.
func (p *Postgres) Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := p.connect(database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be down by now
	})
	return conn
}

func (p *Postgres) connect(database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	return pgx.Connect(ctx, p.DSN(database, "postgres"))
}
