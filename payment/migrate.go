package payment

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that goose works with
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	schema       = "payment"
	versionTable = schema + ".migrations"
	appRole      = "payment_app"

	// schemaVersion is what this version of the service needs.
	schemaVersion = 2
	// outboxVersion is the migration that makes the outbox. Its text is not here:
	// the table is the relay's contract, not ours.
	outboxVersion = 2
)

const (
	sqlUndefinedTable  = "42P01"
	sqlUndefinedObject = "42704"
)

// MigrateConfig is what migrating needs. The role of the DSN owns what is made.
type MigrateConfig struct {
	DSN string
	// OutboxSQL makes the table public.outbox.
	OutboxSQL string
	// RolesSQL makes the roles, payment_app among them, and gives them their
	// rights on the outbox. Run every time, as far as the DSN's role may: all that
	// it does may be done again.
	RolesSQL string
	Logger   *slog.Logger // nil discards
}

// MigrationState is one migration and when it was done; zero: not yet.
type MigrationState struct {
	Version   int64     `json:"version"`
	Name      string    `json:"name"`
	AppliedAt time.Time `json:"applied_at,omitzero"`
}

// RolesNotMade says that the tables are there, but the roles need somebody with
// more rights.
type RolesNotMade struct{ Cause error }

func (e *RolesNotMade) Error() string {
	return fmt.Sprintf("the tables are made, the roles are not: %v; run sql/002_roles.sql as a superuser, then payment-api migrate up again", e.Cause)
}

func (e *RolesNotMade) Unwrap() error { return e.Cause }

// MigrateUp makes everything that is not there yet and returns what it did.
// Several may run at once: one works, the others wait. The error is a
// *RolesNotMade if only the roles are missing.
func MigrateUp(ctx context.Context, cfg MigrateConfig) (done []MigrationState, err error) {
	db, provider, err := openMigrations(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	results, err := provider.Up(ctx)
	for _, r := range results {
		if r.Error == nil {
			done = append(done, MigrationState{Version: r.Source.Version, Name: migrationName(r.Source), AppliedAt: time.Now().UTC()})
		}
	}
	if err != nil {
		return done, fmt.Errorf("migrate: %w", err)
	}
	return done, makeRoles(ctx, db, cfg.RolesSQL)
}

// MigrateStatus returns all migrations and changes nothing.
func MigrateStatus(ctx context.Context, cfg MigrateConfig) (states []MigrationState, err error) {
	db, provider, err := openMigrations(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied := map[int64]time.Time{}
	rows, err := db.QueryContext(ctx, `SELECT version_id, tstamp FROM `+versionTable+` WHERE is_applied`)
	if state := sqlState(err); err != nil && state != sqlUndefinedTable {
		return nil, fmt.Errorf("read %s: %w", versionTable, err)
	}
	if err == nil {
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var version int64
			var at time.Time
			if err := rows.Scan(&version, &at); err != nil {
				return nil, fmt.Errorf("read %s: %w", versionTable, err)
			}
			applied[version] = at.UTC()
		}
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", versionTable, err)
		}
	}
	for _, source := range provider.ListSources() {
		states = append(states, MigrationState{Version: source.Version, Name: migrationName(source), AppliedAt: applied[source.Version]})
	}
	return states, nil
}

func migrationName(source *goose.Source) string {
	if source.Version == outboxVersion {
		return "002_outbox"
	}
	return source.Path
}

// openMigrations makes the schema, if asked to, as goose keeps its table there.
func openMigrations(ctx context.Context, cfg MigrateConfig, makeSchema bool) (*sql.DB, *goose.Provider, error) {
	if _, err := pgx.ParseConfig(cfg.DSN); err != nil { // this error has no password in it
		return nil, nil, fmt.Errorf("migrate: %w", err)
	}
	db, err := sql.Open("pgx", cfg.DSN)
	if err != nil {
		return nil, nil, fmt.Errorf("migrate: %w", err)
	}
	provider, err := newProvider(ctx, db, cfg, makeSchema)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, provider, nil
}

func newProvider(ctx context.Context, db *sql.DB, cfg MigrateConfig, makeSchema bool) (*goose.Provider, error) {
	if makeSchema {
		if err := createSchema(ctx, db); err != nil {
			return nil, err
		}
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	outbox := goose.NewGoMigration(outboxVersion, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, cfg.OutboxSQL)
		return err
	}}, nil)
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(outbox), goose.WithSessionLocker(locker), goose.WithSlog(logger))
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	return provider, nil
}

// createSchema tolerates others who make it at the same moment, and a schema
// that was made for a role that may not make one.
func createSchema(ctx context.Context, db *sql.DB) error {
	const uniqueViolation, duplicateSchema = "23505", "42P06"
	var exists bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)`, schema).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema %s: %w", schema, err)
	}
	if exists {
		return nil
	}
	_, err := db.ExecContext(ctx, `CREATE SCHEMA `+schema)
	if state := sqlState(err); err != nil && state != uniqueViolation && state != duplicateSchema {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	return nil
}

// makeRoles makes the roles if it may, and gives the application its rights on
// our tables. On the outbox it has INSERT and nothing else.
func makeRoles(ctx context.Context, db *sql.DB, rolesSQL string) error {
	cause := inTransaction(ctx, db, rolesSQL)
	if cause != nil && sqlState(cause) != sqlInsufficientRights {
		return fmt.Errorf("make the roles: %w", cause)
	}
	err := inTransaction(ctx, db, rights)
	if sqlState(err) == sqlUndefinedObject { // no such role
		return &RolesNotMade{Cause: cause}
	}
	if err != nil {
		return fmt.Errorf("give %s its rights: %w", appRole, err)
	}
	var mayInsert bool
	if err := db.QueryRowContext(ctx, `SELECT pg_catalog.has_table_privilege($1, 'public.outbox', 'INSERT')`, appRole).Scan(&mayInsert); err != nil {
		return fmt.Errorf("look at the rights of %s: %w", appRole, err)
	}
	if !mayInsert {
		return &RolesNotMade{Cause: cause}
	}
	return nil
}

// rights of the application on its own tables: what the statements of store.go
// and read.go need. Locking a row needs UPDATE on one of its columns.
const rights = `
	GRANT USAGE ON SCHEMA ` + schema + ` TO ` + appRole + `;
	GRANT SELECT, INSERT, UPDATE (balance) ON payment.users TO ` + appRole + `;
	GRANT SELECT, INSERT, UPDATE (status) ON payment.reservations TO ` + appRole + `;
	GRANT SELECT, INSERT ON payment.payments, payment.history, payment.charges TO ` + appRole + `;
	GRANT SELECT, INSERT, UPDATE, DELETE ON payment.idempotency_keys TO ` + appRole + `;
	GRANT SELECT ON ` + versionTable + ` TO ` + appRole

// inTransaction runs the text alone in this database: the server refuses rights
// that two give at the same moment.
func inTransaction(ctx context.Context, db *sql.DB, text string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	const lock = `SELECT pg_catalog.pg_advisory_xact_lock('pg_catalog.pg_namespace'::regclass::oid::integer, '` + schema + `'::regnamespace::oid::integer);`
	if _, err := tx.ExecContext(ctx, lock+text); err != nil {
		_ = tx.Rollback() // the first error tells more
		return err
	}
	return tx.Commit()
}
