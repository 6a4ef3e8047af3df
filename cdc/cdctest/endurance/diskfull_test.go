//go:build chaos && linux

package endurance

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestDiskFull: the disk of the server has no room left, under load. Inserts
// fail, spilling fails, and in the end the server panics when it cannot write
// WAL. The relay tries again until there is room; nothing is lost. It mounts a
// small tmpfs, for which it has to be root.
func TestDiskFull(t *testing.T) {
	kafka, binary := cdctest.SharedKafka(t), relaytest.Build(t) // not on the small disk
	disk := mountDisk(t, "size=320m,mode=0755")
	t.Setenv("TMPDIR", disk)
	postgres := cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: map[string]string{
		"max_wal_size": "64MB", "min_wal_size": "32MB", "logical_decoding_work_mem": "64kB",
	}})
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{Postgres: postgres, Kafka: kafka, Binary: binary})
	l := e.Watch(t, ledger.Config{RowsPerSecond: 1000, BigTransactionRows: 1500, Seed: rand.Uint64()})
	relay := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, 2000, time.Minute)
	for round := range 3 {
		ballast := fill(t, disk)
		full := time.Now()
		if round == 2 {
			panicServer(t, postgres)
		}
		seen := awaitQuiet(t, l)
		t.Logf("nothing new was seen %s after the disk was full; the server runs: %t", time.Since(full).Round(time.Millisecond), postgres.Server().Running())
		cdctest.Pause(t, 5*time.Second)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		freed := time.Now()
		awaitConnections(t, postgres)
		l.WaitSeen(t, seen+1, 30*time.Second)
		t.Logf("the next event was seen %s after there was room again", time.Since(freed).Round(time.Millisecond))
		relay.WaitState(t, cdc.StateStreaming, 30*time.Second)
		l.WaitSeen(t, seen+1000, time.Minute)
	}
	l.Stop(t)
	relay.Stop(t)
	if lives := relay.Lives(); lives != 1 {
		t.Errorf("the relay lived %d times, want once: a full disk is no reason to end", lives)
	}
	l.RequireExact(t, 5000)
}

// panicServer writes WAL and nothing else until there is no room for a further
// segment, which ends the server. It does so in a database where no slot sees it.
func panicServer(t *testing.T, postgres *cdctest.Postgres) {
	t.Helper()
	conn := postgres.Connect(t, "postgres")
	for range 1000 {
		if _, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))"); err != nil {
			t.Logf("writing WAL ended: %v; the connection is closed: %t", err, conn.IsClosed())
			return
		}
	}
	t.Fatal("the disk took a gigabyte of WAL")
}

// awaitConnections starts the server, unless it came back by itself.
func awaitConnections(t *testing.T, postgres *cdctest.Postgres) {
	t.Helper()
	await(t, "the server takes connections again", time.Minute, func() bool {
		postgres.Start(t)
		conn, err := pgx.Connect(t.Context(), postgres.DSN("postgres", "postgres"))
		if err != nil {
			return false
		}
		return conn.Close(t.Context()) == nil
	})
}

func mountDisk(t *testing.T, options string) string {
	t.Helper()
	disk, err := os.MkdirTemp("/tmp", "disk-")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs: %v; run this test as root", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(syscall.Unmount(disk, 0), os.Remove(disk)); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// fill writes a file until nothing more goes in.
func fill(t *testing.T, disk string) string {
	t.Helper()
	path := filepath.Join(disk, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 64<<10); err == nil; _, err = file.Write(block) {
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	return path
}

// awaitQuiet waits until no new event was seen for two seconds.
func awaitQuiet(t *testing.T, l *ledger.Ledger) int {
	t.Helper()
	for last, since := -1, time.Now(); ; cdctest.Pause(t, 50*time.Millisecond) {
		if count := l.Observer().Count(); count != last {
			last, since = count, time.Now()
		}
		if time.Since(since) > 2*time.Second {
			return last
		}
	}
}
