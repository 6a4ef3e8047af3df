package main

import (
	"fmt"
	"slices"
	"strings"
)

// configError is one problem of the configuration.
type configError struct {
	where   string // relay.yaml:3, env CDC_RELAY_RELAY, --set; empty when nothing was set
	line    int    // in the file; 0 elsewhere
	path    string // postgres.slot; empty when it is not about one setting
	text    string
	excerpt string // the line of the file; empty elsewhere
}

// configErrors are all problems at once; exit code 2. The zero value has none.
type configErrors struct{ list []configError }

func (e *configErrors) add(problem configError) { e.list = append(e.list, problem) }

// sorted has the file's problems in the order of its lines, then the others in
// the order in which they were found.
func (e *configErrors) sorted() []configError {
	list := slices.Clone(e.list)
	slices.SortStableFunc(list, func(a, b configError) int {
		switch {
		case a.line > 0 && b.line > 0:
			return a.line - b.line
		case a.line > 0:
			return -1
		case b.line > 0:
			return 1
		}
		return 0
	})
	return list
}

// Error prints one problem per paragraph.
func (e *configErrors) Error() string {
	var b strings.Builder
	noun := "problems"
	if len(e.list) == 1 {
		noun = "problem"
	}
	fmt.Fprintf(&b, "%d %s in the configuration", len(e.list), noun)
	for _, p := range e.sorted() {
		b.WriteString("\n  ")
		if p.where != "" {
			b.WriteString(p.where + ": ")
		}
		if p.path != "" {
			b.WriteString(p.path + ": ")
		}
		b.WriteString(p.text)
		if p.excerpt != "" {
			b.WriteString("\n  " + p.excerpt)
		}
	}
	return b.String()
}

// errorOrNil is nil when there are no problems.
func (e *configErrors) errorOrNil() error {
	if len(e.list) == 0 {
		return nil
	}
	return e
}
