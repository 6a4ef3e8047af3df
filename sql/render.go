package sql

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"unicode"
)

// Files are the migrations, named NNN_subject.sql.
//
//go:embed *.sql
var Files embed.FS

// DefaultTable and DefaultPublication are the names that the files use.
const (
	DefaultTable       = "public.outbox"
	DefaultPublication = "payments_outbox"
)

// maxTableBytes leaves room below PostgreSQL's 63 bytes of an identifier for the
// longest suffix, _make_days.
const maxTableBytes = 63 - len("_make_days")

// Migration is one numbered file.
type Migration struct {
	Name string // 001_outbox.sql
	SQL  string
}

// Migrations returns all files in the order of their numbers.
func Migrations() ([]Migration, error) {
	names, err := fs.Glob(Files, "*.sql")
	if err != nil {
		return nil, err
	}
	migrations := make([]Migration, 0, len(names))
	for _, name := range names {
		text, err := Files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", name, err)
		}
		migrations = append(migrations, Migration{Name: name, SQL: string(text)})
	}
	return migrations, nil
}

// Outbox returns 001_outbox.sql for the table named schema.table. Both parts are
// taken literally, case and all, and quoted.
func Outbox(table string) (string, error) { return render("001_outbox.sql", table, DefaultPublication) }

// Roles returns 002_roles.sql for the table.
func Roles(table string) (string, error) { return render("002_roles.sql", table, DefaultPublication) }

// Publication returns 003_publication.sql for the publication and the table.
func Publication(publication, table string) (string, error) {
	return render("003_publication.sql", table, publication)
}

// names matches what stands for a name in the files: the table's schema as a
// literal, the publication, and public.outbox with an optional suffix, bare or
// as a literal.
var names = regexp.MustCompile(`'public'|["']payments_outbox["']|'public\.outbox([a-z0-9_]*)'|public\.outbox([a-z0-9_]*)`)

func render(file, table, publication string) (string, error) {
	text, err := Files.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read migration %s: %w", file, err)
	}
	schema, name, err := SplitTable(table)
	if err != nil {
		return "", err
	}
	if len(name) > maxTableBytes {
		return "", fmt.Errorf("table name %q has %d bytes, at most %d leave room for the names made from it", name, len(name), maxTableBytes)
	}
	if err := checkName("publication", publication); err != nil {
		return "", err
	}
	return names.ReplaceAllStringFunc(string(text), func(found string) string {
		switch found {
		case `'public'`:
			return literal(schema)
		case `"payments_outbox"`:
			return identifier(publication)
		case `'payments_outbox'`:
			return literal(publication)
		}
		bare := strings.Trim(found, "'")
		qualified := identifier(schema) + "." + identifier(name+strings.TrimPrefix(bare, DefaultTable))
		if bare != found {
			return literal(qualified)
		}
		return qualified
	}), nil
}

// SplitTable takes schema.table apart at its first dot.
func SplitTable(table string) (schema, name string, err error) {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return "", "", fmt.Errorf("table %q: want schema.table", table)
	}
	if err := checkName("schema", schema); err != nil {
		return "", "", err
	}
	if err := checkName("table", name); err != nil {
		return "", "", err
	}
	return schema, name, nil
}

// checkName refuses what no quoting makes safe: the dollar sign, which could end
// the dollar-quoted bodies of the files, and control characters.
func checkName(what, name string) error {
	if name == "" || len(name) > 63 || strings.ContainsRune(name, '$') || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%s name %q: want 1 to 63 bytes without a dollar sign or control character", what, name)
	}
	return nil
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal escapes for standard_conforming_strings both on and off.
func literal(text string) string {
	quoted := `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
	if strings.Contains(text, `\`) {
		return ` E` + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
