package relaytest

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Program is what to run: cdc-relay, or one of the programs around it.
type Program struct {
	Name  string   // for messages
	Argv  []string // Argv[0] is a path
	Env   []string // beside the inherited environment, which loses what configures the programs
	Admin string   // host:port of the relay's admin server; empty for other programs
}

// environment is what the program gets.
func (p Program) environment() []string {
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.ContainsFunc([]string{"CDC_RELAY_", "PAYMENT_API_", "NOTIFIER_"}, func(prefix string) bool { return strings.HasPrefix(variable, prefix) })
	})
	return append(inherited, p.Env...)
}

// Run runs a program to its end. When ctx ends before, the program is killed.
func Run(ctx context.Context, program Program) (*Process, error) {
	p, err := start(program)
	if err != nil {
		return nil, err
	}
	if _, err := p.Wait(ctx); err != nil {
		p.Kill()
		return p, err
	}
	return p, nil
}

// MustRun runs a program that has to end with exit code 0.
func MustRun(t testing.TB, program Program) *Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p, err := Run(ctx, program)
	if p == nil {
		t.Fatal(err)
	}
	if err != nil || p.ExitCode() != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s", program.Name, p.ExitCode(), err, p.Output())
	}
	return p
}
