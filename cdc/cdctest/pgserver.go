package cdctest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PostgresConfig says which PostgreSQL, and how it is configured.
type PostgresConfig struct {
	// Major: 0 is the highest one found on this machine, else an embedded one.
	Major int
	// BinDir has the programs of one installation, as FullPostgres returns it;
	// empty: those of Major.
	BinDir string
	// Settings are lines of postgresql.conf that override the defaults here;
	// values are as in the file, without quotes.
	Settings map[string]string
	// TLS: it takes TLS connections too; see TLSDSN.
	TLS bool
}

// defaultSettings suit tests of logical replication: fast, and safe only
// against crashes of processes. synchronous_commit stays on, so that what is
// committed survives an immediate stop.
var defaultSettings = map[string]string{
	"wal_level":                 "logical",
	"max_wal_senders":           "40",
	"max_replication_slots":     "40",
	"max_connections":           "200",
	"max_prepared_transactions": "10",
	"fsync":                     "off",
	"full_page_writes":          "off",
	"synchronous_commit":        "on",
	"shared_buffers":            "64MB",
	"wal_sender_timeout":        "10s",
	"listen_addresses":          "127.0.0.1",
	"lc_messages":               "C",
	"timezone":                  "UTC",
	"log_timezone":              "UTC",
	"log_line_prefix":           "%m [%p] %u@%d ",
}

// startTimeout bounds a start, crash recovery included, and that of a Java server
// on a busy machine; stopTimeout a stop.
const (
	startTimeout = 3 * time.Minute
	stopTimeout  = 60 * time.Second
)

// StopMode is pg_ctl's word for how a server is stopped.
type StopMode string

// The modes.
const (
	StopSmart     StopMode = "smart"     // waits until every client has left
	StopFast      StopMode = "fast"      // ends sessions, writes a checkpoint
	StopImmediate StopMode = "immediate" // a crash: the next start recovers
)

// PostgresServer is one cluster: a data directory of its own, on a port of its
// own, under a helper process. Its methods may be called from any goroutine.
type PostgresServer struct {
	bin  postgresBinaries
	root string // holds data, socket and log
	port int
	tls  bool

	mu     sync.Mutex // guards the field below, and orders starts and stops
	keeper *helper    // nil until the first start
}

// NewPostgresServer makes a cluster without starting it. Remove it in the end.
func NewPostgresServer(cfg PostgresConfig) (*PostgresServer, error) {
	s, err := emptyPostgresServer(cfg)
	if err != nil {
		return nil, err
	}
	s.tls = cfg.TLS
	err = s.initdb()
	if err == nil && s.tls {
		err = s.makeCertificate()
	}
	if err = errors.Join(err, s.Configure(cfg.Settings)); err != nil {
		return nil, errors.Join(err, removeServerDir(s.root))
	}
	return s, nil
}

func (cfg PostgresConfig) binaries() (postgresBinaries, error) {
	if cfg.BinDir != "" {
		return inspectBinaries(cfg.BinDir)
	}
	return locatePostgres(cfg.Major)
}

// emptyPostgresServer has a directory and a port, but no cluster.
func emptyPostgresServer(cfg PostgresConfig) (*PostgresServer, error) {
	bin, err := cfg.binaries()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	return &PostgresServer{bin: bin, root: root, port: port}, nil
}

// Major returns the server's major version.
func (s *PostgresServer) Major() int { return s.bin.major }

// DataDir returns the data directory.
func (s *PostgresServer) DataDir() string { return filepath.Join(s.root, "data") }

// BinDir returns where initdb and postgres are.
func (s *PostgresServer) BinDir() string { return s.bin.dir }

// Port returns the TCP port on 127.0.0.1; it stays the same over restarts.
func (s *PostgresServer) Port() int { return s.port }

// LogPath returns the server's log.
func (s *PostgresServer) LogPath() string { return filepath.Join(s.root, "log") }

// DSN returns a connection string over TCP. The superuser is postgres.
func (s *PostgresServer) DSN(database, user string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     loopback(s.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// SocketDSN returns a connection string over the Unix socket.
func (s *PostgresServer) SocketDSN(database, user string) string {
	quote := func(value string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", quote(s.root), s.port, quote(user), quote(database))
}

// initdb makes the data directory. Every cluster is made anew instead of copied
// from a template, because copies share their system identifier.
func (s *PostgresServer) initdb(options ...string) error {
	cmd := exec.Command(filepath.Join(s.bin.dir, "initdb"), append(options, "-D", s.DataDir(), "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")...)
	cmd.Dir = s.root
	cmd.Env = serverEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: serverCredential()}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	return nil
}

// Configure writes the settings over the defaults. A running server sees them
// after a restart.
func (s *PostgresServer) Configure(settings map[string]string) error {
	all := maps.Clone(defaultSettings)
	if s.tls {
		all["ssl"], all["ssl_cert_file"] = "on", s.certificate()
	}
	maps.Copy(all, settings)
	all["port"] = strconv.Itoa(s.port)
	all["unix_socket_directories"] = s.root
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, strings.ReplaceAll(all[name], "'", "''"))
	}
	path := filepath.Join(s.DataDir(), "cdctest.conf")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if err := ownByServer(path); err != nil {
		return err
	}
	return s.includeSettings()
}

// includeSettings makes postgresql.conf read the file of Configure last.
func (s *PostgresServer) includeSettings() error {
	const include = "include = 'cdctest.conf'\n"
	path := filepath.Join(s.DataDir(), "postgresql.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if strings.HasSuffix(string(conf), include) {
		return nil
	}
	if err := os.WriteFile(path, append(conf, include...), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Start starts the server and returns when it accepts connections (a standby:
// read-only ones). A server that runs is left alone.
func (s *PostgresServer) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper.running() {
		return nil
	}
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the helper has its own
	k, err := startKeeper(log, s.root, true, syscall.SIGQUIT, filepath.Join(s.bin.dir, "postgres"), "-D", s.DataDir())
	if err != nil {
		return err
	}
	s.keeper = k
	if err := s.awaitReady(ctx); err != nil {
		err = fmt.Errorf("start PostgreSQL %d: %w; its log ends:\n%s", s.bin.major, err, logTail(s.LogPath()))
		return errors.Join(err, k.end(signalOrder(syscall.SIGQUIT)))
	}
	return nil
}

// awaitReady waits until the server says in postmaster.pid that it is ready, as
// pg_ctl does. A file left by a killed server names another process.
func (s *PostgresServer) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if pid, status := s.postmasterStatus(); pid == s.keeper.hello && (status == "ready" || status == "standby") {
			return nil
		}
		select {
		case <-poll.C:
		case <-s.keeper.ended:
			return fmt.Errorf("it ended: %w", s.keeper.endedErr)
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", startTimeout, ctx.Err())
		}
	}
}

// postmasterStatus returns the first and the eighth line of postmaster.pid.
func (s *PostgresServer) postmasterStatus() (pid, status string) {
	data, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return "", ""
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 8 {
		return "", ""
	}
	return strings.TrimSpace(lines[0]), strings.TrimSpace(lines[7])
}

// Running says whether the server process is there.
func (s *PostgresServer) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeper.running()
}

// Stop stops the server and returns when it is down. A server that is down is
// left alone.
func (s *PostgresServer) Stop(mode StopMode) error {
	signals := map[StopMode]syscall.Signal{
		StopSmart: syscall.SIGTERM, StopFast: syscall.SIGINT, StopImmediate: syscall.SIGQUIT,
	}
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop PostgreSQL: unknown mode %q", mode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.keeper.end(signalOrder(sig)); err != nil {
		return fmt.Errorf("stop PostgreSQL %s: %w; its log ends:\n%s", mode, err, logTail(s.LogPath()))
	}
	return nil
}

// Remove stops the server at once and deletes its directory.
func (s *PostgresServer) Remove() error {
	return errors.Join(s.Stop(StopImmediate), removeServerDir(s.root))
}
