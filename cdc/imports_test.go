package cdc_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/cdc-relay/cdc-relay"

// sourceFile is one Go file of the module.
type sourceFile struct {
	name    string // from the module's root: cdc/kafka/publisher.go
	dir     string // cdc/kafka
	test    bool
	lines   int
	syntax  *ast.File
	set     *token.FileSet
	imports map[string]string // local name -> path
}

// loadSources parses every Go file below root, whatever its build tags.
func loadSources(root fs.FS) (files []sourceFile, err error) {
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if base := path.Base(name); name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "vendor") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		content, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parseSource(name, content)
		if err != nil {
			return err
		}
		files = append(files, file)
		return nil
	})
	return files, err
}

func parseSource(name string, content []byte) (sourceFile, error) {
	file := sourceFile{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), set: token.NewFileSet(), imports: map[string]string{}}
	syntax, err := parser.ParseFile(file.set, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return file, err
	}
	file.syntax, file.lines = syntax, file.set.File(syntax.Pos()).LineCount()
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
			if local == "_" || local == "." {
				local += imported // as many as there are, each of its own
			}
		}
		file.imports[local] = imported
	}
	return file, nil
}

// within says whether dir is one of the trees or below it.
func within(dir string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return dir == tree || strings.HasPrefix(dir, tree+"/") })
}

// own returns the directory of a package of this module.
func own(imported string) (dir string, ok bool) { return strings.CutPrefix(imported, module+"/") }

func isStd(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// importRule forbids imports of non-test files.
type importRule struct {
	name    string
	applies func(dir string) bool
	forbids func(imported string) bool
	reason  string
}

// tree applies a rule to directories and all below them.
func tree(dirs ...string) func(string) bool {
	return func(dir string) bool { return within(dir, dirs...) }
}

// outside applies a rule everywhere else.
func outside(dirs ...string) func(string) bool {
	return func(dir string) bool { return !within(dir, dirs...) }
}

// unless forbids what is neither of the standard library nor below one of the
// packages; the packages of this module begin with a slash.
func unless(allowed ...string) func(string) bool {
	return func(imported string) bool {
		return !isStd(imported) && !slices.ContainsFunc(allowed, func(pkg string) bool {
			if strings.HasPrefix(pkg, "/") {
				return imported == module+pkg
			}
			return within(imported, pkg)
		})
	}
}

// ofModuleUnless forbids packages of this module but the named ones and what is
// below them; other modules are free.
func ofModuleUnless(allowed ...string) func(string) bool {
	return func(imported string) bool {
		dir, isOwn := own(imported)
		return isOwn && !within(dir, allowed...)
	}
}

// packages forbids the packages and what is below them.
func packages(forbidden ...string) func(string) bool {
	return func(imported string) bool { return within(imported, forbidden...) }
}

func importRules() []importRule {
	return []importRule{
		{
			"core", func(dir string) bool { return dir == "cdc" }, unless(),
			"the core is readable and testable without pgx, kgo or a socket: the standard library only, none of its subpackages",
		},
		{
			"routing", tree("cdc/routing"), unless("/cdc"),
			"routing is pure: it knows rows and records, no server and no library",
		},
		{
			"postgres", tree("cdc/postgres"), packages(module+"/cdc/kafka", "github.com/twmb/franz-go"),
			"the adapters never know each other: what both need is a type of package cdc",
		},
		{
			"kafka", tree("cdc/kafka"), packages(module+"/cdc/postgres", "github.com/jackc"),
			"the adapters never know each other: what both need is a type of package cdc",
		},
		{
			"outbox", tree("cdc/outbox"), unless("github.com/jackc/pgx/v5", "github.com/google/uuid"),
			"applications import it: it brings them nothing of the relay and no further module",
		},
		{
			"payment/event", tree("payment/event"), unless(),
			"the contract with consumers is the standard library only, so that any consumer can import it",
		},
		{
			"payment", tree("payment"), ofModuleUnless("cdc/outbox", "payment"),
			"the payment service knows the outbox, not the relay and not its consumers",
		},
		{
			"payment without Kafka", tree("payment", "cmd/payment-api"), packages("github.com/twmb/franz-go", module+"/cdc/kafka"),
			"the point of the outbox is that the application speaks to its database alone",
		},
		{
			"notifier", tree("notifier"), ofModuleUnless("payment/event", "notifier"),
			"a consumer knows the event types, not who produces or relays them",
		},
		{
			"cmd", outside("cmd"), packages(module + "/cmd"),
			"programs are wiring: what two of them need belongs to a package",
		},
		{
			"test libraries", outside("cdc/cdctest", "cmd/demo"), packages("testing", "github.com/twmb/franz-go/pkg/kfake", "github.com/fergusstrange/embedded-postgres",
				"go.uber.org/goleak", "pgregory.net/rapid", "github.com/google/go-cmp", "github.com/rogpeppe/go-internal"),
			"production binaries link no fake broker, no embedded database and no test library",
		},
		{
			"cdctest", outside("cdc/cdctest", "cmd/demo"), packages(module + "/cdc/cdctest"),
			"production binaries link no fake broker, no embedded database and no test library",
		},
		{
			"promauto", outside(), packages("github.com/prometheus/client_golang/prometheus/promauto"),
			"metrics are registered where main says, never in a global registry",
		},
	}
}

// checkImports returns the violations of one rule.
func (r importRule) check(files []sourceFile) (violations []string) {
	for _, file := range files {
		if file.test || !r.applies(file.dir) {
			continue
		}
		for _, imported := range file.imports {
			if r.forbids(imported) {
				violations = append(violations, fmt.Sprintf("%s imports %s: %s", file.name, imported, r.reason))
			}
		}
	}
	slices.Sort(violations)
	return violations
}

// useRule forbids to name functions and variables of packages in non-test files.
type useRule struct {
	name    string
	applies func(file sourceFile) bool
	pkg     string
	names   []string
	reason  string
}

// isLibrary says whether a file is none of a program; tests may bring a program
// of their own.
func isLibrary(file sourceFile) bool {
	return !within(file.dir, "cmd") && (!within(file.dir, "cdc/cdctest") || file.syntax.Name.Name != "main")
}

func isAny(sourceFile) bool { return true }

func useRules() []useRule {
	const process = "a library returns; what becomes of the process is for main to say"
	const registry = "metrics are registered where main says, never in a global registry"
	return []useRule{
		{"os.Exit", isLibrary, "os", []string{"Exit"}, process},
		{"signals", isLibrary, "os/signal", []string{"Notify", "NotifyContext", "Ignore", "Reset"}, process},
		{"log.Fatal", isAny, "log", []string{"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"}, "it ends the process without its deferred functions; return the error"},
		{
			"default registry", isAny, "github.com/prometheus/client_golang/prometheus",
			[]string{"DefaultRegisterer", "DefaultGatherer", "Register", "MustRegister", "Unregister"}, registry,
		},
		{"default metrics handler", isAny, "github.com/prometheus/client_golang/prometheus/promhttp", []string{"Handler"}, registry},
		{"default mux", isAny, "net/http", []string{"DefaultServeMux", "Handle", "HandleFunc"}, "any imported package may add to the default mux (net/http/pprof does)"},
	}
}

func (r useRule) check(files []sourceFile) (violations []string) {
	for _, file := range files {
		if file.test || !r.applies(file) {
			continue
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if ok && file.imports[pkg.Name] == r.pkg && slices.Contains(r.names, selector.Sel.Name) {
				violations = append(violations, fmt.Sprintf("%s uses %s.%s: %s", file.set.Position(selector.Pos()), r.pkg, selector.Sel.Name, r.reason))
			}
			return true
		})
	}
	return violations
}

func TestImports(t *testing.T) {
	files, err := loadSources(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f sourceFile) bool { return f.name == "cdc/lsn.go" }) {
		t.Fatal("the module's root is not one directory up: cdc/lsn.go was not found")
	}
	for _, rule := range importRules() {
		for _, violation := range rule.check(files) {
			t.Errorf("%s: %s", rule.name, violation)
		}
	}
	for _, rule := range useRules() {
		for _, violation := range rule.check(files) {
			t.Errorf("%s: %s", rule.name, violation)
		}
	}
}

// Every rule is broken once by a file and kept by another like it, so that no
// rule can be one that never fires.
func TestImportRulesFire(t *testing.T) {
	type example struct{ file, breaks, keeps string }
	for rule, e := range map[string]example{
		"core":                  {"cdc/a.go", module + "/cdc/routing", "net/url"},
		"routing":               {"cdc/routing/a.go", module + "/cdc/outbox", module + "/cdc"},
		"postgres":              {"cdc/postgres/a.go", module + "/cdc/kafka", "github.com/jackc/pgx/v5"},
		"kafka":                 {"cdc/kafka/sub/a.go", "github.com/jackc/pgx/v5", "github.com/twmb/franz-go/pkg/kgo"},
		"outbox":                {"cdc/outbox/a.go", module + "/cdc", "github.com/jackc/pgx/v5/pgxpool"},
		"payment/event":         {"payment/event/a.go", "github.com/google/uuid", "time"},
		"payment":               {"payment/a.go", module + "/cdc", module + "/cdc/outbox"},
		"payment without Kafka": {"cmd/payment-api/a.go", "github.com/twmb/franz-go/pkg/kgo", module + "/payment"},
		"notifier":              {"notifier/a.go", module + "/payment", module + "/payment/event"},
		"cmd":                   {"cdc/audit/a.go", module + "/cmd/cdc-relay/monitoring", module + "/cdc/kafka"},
		"test libraries":        {"cmd/cdc-relay/a.go", "testing", "testingx"},
		"cdctest":               {"cmd/cdc-relay/a.go", module + "/cdc/cdctest/ledger", module + "/cdc/audit"},
		"promauto":              {"cdc/metrics/a.go", "github.com/prometheus/client_golang/prometheus/promauto", "github.com/prometheus/client_golang/prometheus"},
	} {
		i := slices.IndexFunc(importRules(), func(r importRule) bool { return r.name == rule })
		if i < 0 {
			t.Errorf("no rule is called %s", rule)
			continue
		}
		check := func(name, imported string) []string {
			files, err := loadSources(fstest.MapFS{name: {Data: fmt.Appendf(nil, "package a\nimport _ %q\n", imported)}})
			if err != nil || len(files) != 1 {
				t.Fatalf("%s: got %d files, %v", rule, len(files), err)
			}
			return importRules()[i].check(files)
		}
		if got := check(e.file, e.breaks); len(got) != 1 || !strings.Contains(got[0], e.file) || !strings.Contains(got[0], e.breaks) {
			t.Errorf("%s: %s may import %s: got %q", rule, e.file, e.breaks, got)
		}
		if got := check(e.file, e.keeps); len(got) != 0 {
			t.Errorf("%s: %s may not import %s: got %q", rule, e.file, e.keeps, got)
		}
		if got := check(strings.Replace(e.file, ".go", "_test.go", 1), e.breaks); len(got) != 0 {
			t.Errorf("%s: tests of %s may not import %s: got %q", rule, e.file, e.breaks, got)
		}
	}
	if len(importRules()) != 13 {
		t.Errorf("there are %d rules; give each an example here", len(importRules()))
	}
}

func TestUseRulesFire(t *testing.T) {
	examples := map[string]string{
		"os.Exit":                 "package a\nimport \"os\"\nfunc f() { os.Exit(1) }\n",
		"signals":                 "package a\nimport s \"os/signal\"\nfunc f() { s.Notify(nil) }\n",
		"log.Fatal":               "package a\nimport \"log\"\nvar f = log.Fatalf\n",
		"default registry":        "package a\nimport \"github.com/prometheus/client_golang/prometheus\"\nvar f = prometheus.DefaultRegisterer\n",
		"default metrics handler": "package a\nimport \"github.com/prometheus/client_golang/prometheus/promhttp\"\nvar f = promhttp.Handler()\n",
		"default mux":             "package a\nimport \"net/http\"\nfunc f() { http.HandleFunc(\"/\", nil) }\n",
	}
	for _, rule := range useRules() {
		source, ok := examples[rule.name]
		if !ok {
			t.Errorf("give the rule %s an example here", rule.name)
			continue
		}
		for name, want := range map[string]int{"cdc/kafka/a.go": 1, "cdc/kafka/a_test.go": 0} {
			file, err := parseSource(name, []byte(source))
			if err != nil {
				t.Fatal(err)
			}
			if got := rule.check([]sourceFile{file}); len(got) != want {
				t.Errorf("%s: %s: got %q, want %d violations", rule.name, name, got, want)
			}
		}
	}
	for _, program := range []struct {
		name, clause string
		want         int
	}{
		{"cmd/a/main.go", "package main", 0},
		{"cdc/cdctest/server/main.go", "package main", 0},
		{"cdc/cdctest/server.go", "package cdctest", 1},
		{"payment/main.go", "package main", 1},
	} {
		file, err := parseSource(program.name, []byte(strings.Replace(examples["os.Exit"], "package a", program.clause, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := useRules()[0].check([]sourceFile{file}); len(got) != program.want {
			t.Errorf("os.Exit in %s of %s: got %q, want %d violations", program.name, program.clause, got, program.want)
		}
	}
}
