package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestExitCodes(t *testing.T) {
	halt := &cdc.Problem{Treatment: cdc.Halt, Reason: cdc.HaltDiverged, What: "x"}
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{&cdc.Problem{What: "x"}, 1},
		{&cdc.Problem{Treatment: cdc.Undecodable, What: "x"}, 1},
		{&usageError{"x"}, 2},
		{&configErrors{}, 2},
		{errUnhealthy, 3},
		{halt, 5},
		{&cdc.Problem{Treatment: cdc.Setup, What: "x"}, 5},
		{fmt.Errorf("step: %w", halt), 5},
		{errors.Join(errors.New("x"), halt), 5},
		{errors.Join(errors.New("x"), errors.New("y")), 1},
	}
	for _, test := range tests {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: got %d, want %d", test.err, got, test.want)
		}
	}
}

func TestErrorsAreToldInThreeParts(t *testing.T) {
	var b strings.Builder
	printError(&b, errors.Join(
		&cdc.Problem{Treatment: cdc.Halt, Reason: cdc.HaltSlotLost, What: "slot \"a\" is lost", Why: "wal_status is lost", Fix: "cdc-relay resync", Err: errors.New("cause")},
		&cdc.Problem{What: "connect to x", Err: errors.New("refused")},
		errors.New("plain"),
	), false)
	want := `cdc-relay: slot-lost: slot "a" is lost
  why: wal_status is lost: cause
  fix: cdc-relay resync
cdc-relay: error: connect to x
  why: refused
cdc-relay: plain
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	b.Reset()
	printError(&b, errors.New("plain"), true)
	if !strings.Contains(b.String(), "\x1b[") {
		t.Error("no colour")
	}
}
