package cdctest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// NewPostgresCopy makes a cluster that is a cold copy of a stopped one: same
// system identifier, same history, another port. It is not started.
func NewPostgresCopy(of *PostgresServer, settings map[string]string) (*PostgresServer, error) {
	if of.Running() {
		return nil, errors.New("copy a cluster: it is running")
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{bin: of.bin, root: root, port: port}
	if err := errors.Join(copyDataDir(of.DataDir(), s.DataDir()), s.Configure(settings)); err != nil {
		return nil, errors.Join(fmt.Errorf("copy a cluster: %w", err), removeServerDir(root))
	}
	return s, nil
}

// copyDataDir copies a data directory for the user that the servers run as.
func copyDataDir(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	// PostgreSQL refuses a data directory that others can read.
	if err := os.Chmod(to, 0o700); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return ownByServer(path)
	})
}

// StartCopy stops the cluster (fast), copies it, starts both, and removes the
// copy with the test. The two share their past and from now on diverge.
func (p *Postgres) StartCopy(t testing.TB, settings map[string]string) *Postgres {
	t.Helper()
	p.Stop(t, string(StopFast))
	server, err := NewPostgresCopy(p.server, settings)
	p.Start(t)
	if err != nil {
		t.Fatal(err)
	}
	return startedForTest(t, server)
}

// StartStandby is StartCopy with the copy as a hot standby that streams from
// this cluster.
func (p *Postgres) StartStandby(t testing.TB, settings map[string]string) *Postgres {
	t.Helper()
	all := map[string]string{
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres application_name=standby", p.Port()),
	}
	for name, value := range settings {
		all[name] = value
	}
	p.Stop(t, string(StopFast))
	server, err := NewPostgresCopy(p.server, all)
	if err == nil {
		err = server.becomeStandby()
	}
	p.Start(t)
	if err != nil {
		t.Fatal(err)
	}
	return startedForTest(t, server)
}

// becomeStandby makes the next start one in recovery.
func (s *PostgresServer) becomeStandby() error {
	path := filepath.Join(s.DataDir(), "standby.signal")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("make a standby: %w", err)
	}
	return ownByServer(path)
}

// startedForTest starts a server that the test removes in the end.
func startedForTest(t testing.TB, server *PostgresServer) *Postgres {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of PostgreSQL on port %d ends:\n%s", server.port, logTail(server.LogPath()))
		}
		if err := server.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &Postgres{server: server}
}
