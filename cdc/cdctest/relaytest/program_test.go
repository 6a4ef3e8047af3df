package relaytest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

func TestRunTellsHowAProgramEnded(t *testing.T) {
	binary := relaytest.Build(t)
	t.Setenv("CDC_RELAY_RELAY", "inherited")
	program := func(env []string, args ...string) relaytest.Program {
		return relaytest.Program{Name: strings.Join(args, " "), Argv: append([]string{binary}, args...), Env: env}
	}
	if p := relaytest.MustRun(t, program(nil, "version")); !strings.Contains(p.Stdout(), "cdc-relay") || p.Output() != p.Stdout()+p.Stderr() {
		t.Errorf("version: got %q", p.Output())
	}
	for _, env := range [][]string{nil, {"CDC_RELAY_RELAY=given"}} {
		p, err := relaytest.Run(t.Context(), program(env, "config", "show"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.Output(), "inherited") || strings.Contains(p.Output(), "given") != (env != nil) {
			t.Errorf("with the environment %q the configuration is\n%s", env, p.Output())
		}
	}
	if _, err := relaytest.Run(t.Context(), relaytest.Program{Name: "nothing", Argv: []string{binary + "-not"}}); err == nil {
		t.Error("a program that does not exist was run")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	p, err := relaytest.Run(ended, relaytest.Program{Name: "sleep", Argv: []string{"sleep", "600"}})
	if !errors.Is(err, context.Canceled) || p.ExitCode() != -1 {
		t.Errorf("a cancelled program: %v", err)
	}
}

func TestASupervisorGivesUpWhereARestartDoesNotHelp(t *testing.T) {
	s := relaytest.SuperviseProgram(t, relaytest.Program{Name: "misspelt", Argv: []string{relaytest.Build(t), "no-such-command"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.WaitLife(ctx, 2); err == nil || !strings.Contains(err.Error(), "misspelt stopped for good with exit code 2") {
		t.Errorf("got %v", err)
	}
}
