package cdctest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// RequirePassword gives the role a password, makes the role if there is none,
// and from then on demands that password (SCRAM) from it on every connection.
func (p *Postgres) RequirePassword(t testing.TB, user, password string) {
	t.Helper()
	ctx := context.Background()
	conn := p.Connect(t, "postgres")
	role := pgx.Identifier{user}.Sanitize()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, user).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	verb := "CREATE"
	if exists {
		verb = "ALTER"
	}
	literal := "'" + strings.ReplaceAll(password, "'", "''") + "'"
	for _, sql := range []string{
		"SET password_encryption = 'scram-sha-256'",
		verb + " ROLE " + role + " LOGIN PASSWORD " + literal,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("give role %s a password: %v", user, err)
		}
	}
	if err := p.prependHBA(role); err != nil {
		t.Fatal(err)
	}
	p.reload(t, conn)
}

// prependHBA puts rules for one role before all others.
func (p *Postgres) prependHBA(role string) error {
	path := filepath.Join(p.DataDir(), "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read access rules: %w", err)
	}
	rules := fmt.Sprintf("local all %[1]s scram-sha-256\nhost all %[1]s 127.0.0.1/32 scram-sha-256\n"+
		"local replication %[1]s scram-sha-256\nhost replication %[1]s 127.0.0.1/32 scram-sha-256\n", role)
	if err := os.WriteFile(path, append([]byte(rules), old...), 0o600); err != nil {
		return fmt.Errorf("write access rules: %w", err)
	}
	return nil
}

// reload makes the server read its files again and returns when it has.
func (p *Postgres) reload(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	var before time.Time
	if err := conn.QueryRow(ctx, `SELECT pg_conf_load_time() FROM pg_reload_conf()`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	for {
		// Each look is a new session: it began after the postmaster, which
		// starts sessions, had read the files, if its load time says so.
		loaded, err := p.loadTime(ctx)
		if err != nil {
			t.Fatalf("wait for the reload: %v", err)
		}
		if loaded.After(before) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the server did not reload its files")
		}
	}
}

func (p *Postgres) loadTime(ctx context.Context) (loaded time.Time, err error) {
	conn, err := p.connect("postgres")
	if err != nil {
		return loaded, err
	}
	defer conn.Close(context.Background())
	return loaded, conn.QueryRow(ctx, `SELECT pg_conf_load_time()`).Scan(&loaded)
}
