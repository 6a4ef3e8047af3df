package cdctest

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// NewUpgradedPostgres makes a cluster with the programs in binDir and fills it
// by pg_upgrade from a stopped one, which stays as it was. It is not started.
// The text is what pg_upgrade said, also where it refused.
func NewUpgradedPostgres(from *PostgresServer, binDir string) (*PostgresServer, string, error) {
	if from.Running() {
		return nil, "", errors.New("upgrade a cluster: it is running")
	}
	s, err := emptyPostgresServer(PostgresConfig{BinDir: binDir})
	if err != nil {
		return nil, "", err
	}
	var said string
	err = errors.Join(s.initdb(s.withoutChecksums()...), s.Configure(nil))
	if err == nil {
		said, err = s.pgUpgrade(from)
	}
	if err != nil {
		return nil, said, errors.Join(err, removeServerDir(s.root))
	}
	return s, said, nil
}

// withoutChecksums makes the new cluster like the old one: from 18 on initdb
// switches checksums on, and pg_upgrade refuses where the two differ.
func (s *PostgresServer) withoutChecksums() []string {
	if s.bin.major < 18 {
		return nil
	}
	return []string{"--no-data-checksums"}
}

func (s *PostgresServer) pgUpgrade(from *PostgresServer) (string, error) {
	cmd := exec.Command(filepath.Join(s.bin.dir, "pg_upgrade"), "--username", "postgres", "--no-sync",
		"--old-bindir", from.bin.dir, "--new-bindir", s.bin.dir,
		"--old-datadir", from.DataDir(), "--new-datadir", s.DataDir(),
		"--old-port", strconv.Itoa(from.port), "--new-port", strconv.Itoa(s.port), "--socketdir", s.root)
	cmd.Dir = s.root
	cmd.Env = serverEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: serverCredential()}
	output, err := cmd.CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("pg_upgrade %d to %d: %w", from.bin.major, s.bin.major, err)
	}
	return string(output), nil
}

// Upgrade makes a cluster of this stopped one by pg_upgrade, and starts it. It is
// removed with the test.
func (p *Postgres) Upgrade(t testing.TB, binDir string) *Postgres {
	t.Helper()
	server, said, err := NewUpgradedPostgres(p.server, binDir)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	return startedForTest(t, server)
}

// UpgradeRefused is Upgrade where pg_upgrade has to refuse; it returns what it
// said.
func (p *Postgres) UpgradeRefused(t testing.TB, binDir string) string {
	t.Helper()
	server, said, err := NewUpgradedPostgres(p.server, binDir)
	if err == nil {
		t.Fatal(errors.Join(errors.New("pg_upgrade did not refuse"), server.Remove()))
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Fatal(err)
	}
	return said
}
