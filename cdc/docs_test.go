package cdc_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every direct dependency stands in docs/dependencies.md with its reason. A
// module's name there may leave out the path that it shares with its neighbour.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1)
	if len(required) < 10 {
		t.Fatalf("only %d direct dependencies found in go.mod", len(required))
	}
	version := regexp.MustCompile(`/v\d+$`)
	for _, match := range required {
		parts := strings.Split(version.ReplaceAllString(match[1], ""), "/")
		if !strings.Contains(string(page), parts[len(parts)-1]) {
			t.Errorf("%s is not explained in docs/dependencies.md", match[1])
		}
	}
}

// Every test that README and docs name as a proof exists.
func TestDocsNameExistingTests(t *testing.T) {
	existing := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	walkFiles(t, "..", "_test.go", func(text string) {
		for _, match := range function.FindAllStringSubmatch(text, -1) {
			existing[match[1]] = true
		}
	})
	named := 0
	name := regexp.MustCompile("`(?:\\w+\\.)?(Test\\w+)")
	walkFiles(t, "..", ".md", func(text string) {
		for _, match := range name.FindAllStringSubmatch(text, -1) {
			named++
			if !existing[match[1]] {
				t.Errorf("%s is named in the docs and does not exist", match[1])
			}
		}
	})
	if named < 10 {
		t.Errorf("the docs name only %d tests", named)
	}
}

// The table of faults in docs/delivery.md has every fault once, in order, and
// each names a test by its package, of which there is one by that name.
func TestFaultTable(t *testing.T) {
	const faults = 58
	existing := map[string]bool{}
	clause, function := regexp.MustCompile(`(?m)^package (\w+?)(?:_test)?$`), regexp.MustCompile(`(?m)^func (Test\w+)\(t `)
	walkFiles(t, "..", "_test.go", func(text string) {
		if pkg := clause.FindStringSubmatch(text); pkg != nil {
			for _, match := range function.FindAllStringSubmatch(text, -1) {
				existing[pkg[1]+"."+match[1]] = true
			}
		}
	})
	page, err := os.ReadFile("docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	row, name := regexp.MustCompile(`(?m)^\| (\d+) \|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|$`), regexp.MustCompile("`(\\w+\\.Test\\w+)`")
	rows := row.FindAllStringSubmatch(string(page), -1)
	for i, columns := range rows {
		if columns[1] != strconv.Itoa(i+1) {
			t.Fatalf("row %s stands where fault %d should", columns[1], i+1)
		}
		names := name.FindAllStringSubmatch(columns[4], -1)
		if len(names) == 0 {
			t.Errorf("fault %d names no test", i+1)
		}
		for _, match := range names {
			if !existing[match[1]] {
				t.Errorf("fault %d names %s, which does not exist", i+1, match[1])
			}
		}
	}
	if len(rows) != faults {
		t.Errorf("%d faults, want %d", len(rows), faults)
	}
}

func walkFiles(t *testing.T, root, suffix string, visit func(text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, suffix):
			return nil
		}
		text, err := os.ReadFile(path)
		visit(string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
