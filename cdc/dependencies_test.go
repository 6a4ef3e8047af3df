package cdc_test

import (
	"os"
	"regexp"
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
