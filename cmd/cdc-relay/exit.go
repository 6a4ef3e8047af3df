package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// The exit codes; users' service managers depend on them.
const (
	exitFine      = 0
	exitFailure   = 1 // a restart may cure it
	exitUsage     = 2 // usage or configuration
	exitUnhealthy = 3 // unhealthy, or a check failed
	exitDifferent = 4 // an audit found a difference
	exitHalt      = 5 // needs a person; restarting does not help
	exitForced    = 130
)

// usageError is a wrong command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// errUnhealthy is the exit code 3 of a command that has printed its finding, or
// whose finding is joined to it. It is never printed itself.
var errUnhealthy = errors.New("unhealthy")

// errDifferent is the exit code 4 of an audit that has printed what it found. It
// is never printed itself.
var errDifferent = errors.New("the audit found differences")

// exitCode maps an error to the code.
func exitCode(err error) int {
	if err == nil {
		return exitFine
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*configErrors](err); ok {
		return exitUsage
	}
	if errors.Is(err, errUnhealthy) {
		return exitUnhealthy
	}
	if errors.Is(err, errDifferent) {
		return exitDifferent
	}
	if slices.ContainsFunc(unjoin(err), needsPerson) {
		return exitHalt
	}
	return exitFailure
}

func needsPerson(err error) bool {
	problem, ok := errors.AsType[*cdc.Problem](err)
	return ok && (problem.Treatment == cdc.Halt || problem.Treatment == cdc.Setup)
}

// printError tells the error once: a *cdc.Problem as what, why and fix.
func printError(w io.Writer, err error, colour bool) {
	bold, plain := "", ""
	if colour {
		bold, plain = "\x1b[1;31m", "\x1b[0m"
	}
	for _, e := range unjoin(err) {
		if errors.Is(e, errUnhealthy) || errors.Is(e, errDifferent) {
			continue
		}
		problem, ok := errors.AsType[*cdc.Problem](e)
		if !ok {
			fmt.Fprintf(w, "%scdc-relay:%s %v\n", bold, plain, e)
			continue
		}
		head := "error"
		if problem.Reason != "" {
			head = string(problem.Reason)
		}
		fmt.Fprintf(w, "%scdc-relay: %s:%s %s\n", bold, head, plain, problem.What)
		if why := whyOf(problem); why != "" {
			fmt.Fprintf(w, "  why: %s\n", why)
		}
		if problem.Fix != "" {
			fmt.Fprintf(w, "  fix: %s\n", problem.Fix)
		}
	}
}

// whyOf joins the reason and the cause's own words.
func whyOf(p *cdc.Problem) string {
	if p.Err == nil {
		return p.Why
	}
	cause := p.Err.Error()
	if p.Why == "" {
		return cause
	}
	if strings.Contains(p.Why, cause) {
		return p.Why
	}
	return p.Why + ": " + cause
}
