package payment_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/payment"
)

func TestMigrationsMayRunAtTheSameTime(t *testing.T) {
	postgres := cdctest.SharedPostgres(t)
	database := postgres.Database(t)
	cfg := migrateConfig(t, postgres.DSN(database, "postgres"))
	if _, err := payment.MigrateUp(t.Context(), migrateConfig(t, postgres.DSN(postgres.Database(t), "postgres"))); err != nil {
		t.Fatal(err) // makes the roles, which belong to the whole cluster
	}
	results := make(chan int, 3)
	all(3, func(int) {
		done, err := payment.MigrateUp(t.Context(), cfg)
		if err != nil {
			t.Error(err)
		}
		results <- len(done)
	})
	close(results)
	total := 0
	for n := range results {
		total += n
	}
	if total != 2 {
		t.Errorf("%d migrations were done, want 2 once", total)
	}
	states, err := payment.MigrateStatus(t.Context(), cfg)
	if err != nil || len(states) != 2 {
		t.Fatalf("got %v, %v", states, err)
	}
	for _, state := range states {
		if state.AppliedAt.IsZero() {
			t.Errorf("%+v is not applied", state)
		}
	}
}

// An owner that is no superuser makes the tables and says that the roles are not
// made; after somebody has made them, its next run gives them their rights.
func TestAnOwnerWithoutTheRightToMakeRoles(t *testing.T) {
	postgres := cdctest.StartPostgres(t, cdctest.PostgresConfig{}) // whose roles are this test's alone
	database := postgres.Database(t)
	super := postgres.Connect(t, database)
	for _, statement := range []string{`CREATE ROLE app_owner LOGIN`, fmt.Sprintf(`GRANT CREATE ON DATABASE %s TO app_owner`, database), `GRANT CREATE ON SCHEMA public TO app_owner`} {
		if _, err := super.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	cfg := migrateConfig(t, postgres.DSN(database, "app_owner"))
	done, err := payment.MigrateUp(t.Context(), cfg)
	if _, ok := errors.AsType[*payment.RolesNotMade](err); !ok || len(done) != 2 {
		t.Fatalf("got %v, %v, want two migrations and RolesNotMade", done, err)
	}
	if _, err := super.Exec(t.Context(), cfg.RolesSQL); err != nil {
		t.Fatal(err)
	}
	if done, err := payment.MigrateUp(t.Context(), cfg); err != nil || len(done) != 0 {
		t.Fatalf("got %v, %v", done, err)
	}
	pool, err := pgxpool.New(t.Context(), postgres.DSN(database, "payment_app"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	service, err := payment.New(payment.Config{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReadyNeedsTheMigrationsOfThisVersion(t *testing.T) {
	b := newBed(t, nil)
	if err := b.service.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	b.exec(t, `DELETE FROM payment.migrations WHERE version_id = (SELECT max(version_id) FROM payment.migrations)`)
	if err := b.service.Ready(t.Context()); err == nil {
		t.Error("ready with a migration missing")
	}
}
