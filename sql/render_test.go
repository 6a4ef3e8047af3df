package sql_test

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/sql"
)

func TestMigrationsAreOrderedAndNamePublicOutbox(t *testing.T) {
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"001_outbox.sql", "002_roles.sql", "003_publication.sql"}
	if len(migrations) < len(want) {
		t.Fatalf("got %d migrations, want at least %d", len(migrations), len(want))
	}
	for i, name := range want {
		if migrations[i].Name != name {
			t.Errorf("migration %d is %s, want %s", i, migrations[i].Name, name)
		}
		if strings.Contains(strings.ToLower(migrations[i].SQL), "password '") {
			t.Errorf("%s contains a password", name)
		}
	}
}

func TestRenderingTheDefaultNamesOnlyQuotesThem(t *testing.T) {
	got, err := sql.Outbox(sql.DefaultTable)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"public"."outbox" (`, `"public"."outbox_default"`, `"public"."outbox_make_days"(days integer)`, `'"public"."outbox"'::regclass`} {
		if !strings.Contains(got, want) {
			t.Errorf("rendered SQL lacks %s", want)
		}
	}
	if strings.Contains(got, "public.outbox") {
		t.Error("rendered SQL still contains an unquoted public.outbox")
	}
}

func TestNamesThatNoQuotingMakesSafeAreRefused(t *testing.T) {
	for _, table := range []string{"", "outbox", ".outbox", "public.", "public.out$outbox$box", "public.a\x00b", "public.a\nb", "pub$$lic.outbox", "public." + strings.Repeat("x", 60)} {
		if _, err := sql.Outbox(table); err == nil {
			t.Errorf("table %q was accepted", table)
		}
	}
	for _, publication := range []string{"", "a$b", strings.Repeat("p", 64)} {
		if _, err := sql.Publication(publication, sql.DefaultTable); err == nil {
			t.Errorf("publication %q was accepted", publication)
		}
	}
}
