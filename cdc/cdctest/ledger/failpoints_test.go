package ledger_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestFailpoints kills the relay between any two of its effects, once per point
// in the source, and demands that the next life makes it exact.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	names := failpointNames(t, relaytest.ModuleDir(t))
	if len(names) == 0 {
		t.Fatal("the source has no fail-points")
	}
	binary := relaytest.Build(t, "failpoints")
	n := cdctest.Seed(t)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			dieAt(t, binary, name, n+uint64(i))
		})
	}
}

func dieAt(t *testing.T, binary, name string, seed uint64) {
	e := environment(t, binary, "")
	l := e.Watch(t, ledger.Config{RowsPerSecond: 500, Seed: seed})
	// The first hits of some points come with the start, and some come only once
	// in a life: if the drawn number is never reached, the first is.
	drawn := 1 + rand.New(rand.NewPCG(seed, 2)).IntN(3)
	if !diesAt(t, e, name, drawn, failpointPatience) && !diesAt(t, e, name, 1, failpointPatience) {
		t.Fatalf("the relay never came to the fail-point %s", name)
	}
	relay := relaytest.Supervise(t, e.Options())
	l.WaitSeen(t, l.Observer().Count()+50, time.Minute)
	l.Stop(t)
	relay.Stop(t)
	l.RequireExact(t, 50)
}

// failpointPatience is how long a relay that is at work may take until it comes to
// a point once more; after it an orderly stop brings those of the stop.
const failpointPatience = 3 * time.Second

// diesAt runs one life with an armed point and says whether the point ended it.
func diesAt(t *testing.T, e *relaytest.Environment, name string, n int, patience time.Duration) bool {
	t.Helper()
	options := e.Options()
	options.Env = []string{fmt.Sprintf("CDC_RELAY_FAILPOINT=%s:%d", name, n)}
	p := relaytest.Start(t, options)
	awaitWork(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		p.Signal(syscall.SIGTERM)
		stopping, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Wait(stopping); err != nil {
			t.Fatalf("SIGTERM: %v", err)
		}
	}
	return p.KilledBy(syscall.SIGKILL)
}

// awaitWork waits until the relay has recorded rows, whatever the machine takes for
// its start, or has ended: it has come to every point of a start, and once to every
// point of the stream.
func awaitWork(t *testing.T, p *relaytest.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var before cdc.LSN // what was recorded when it was first seen to stream
	for {
		status, err := p.Status(ctx)
		if err == nil && status.State == cdc.StateStreaming {
			if before != 0 && status.RecordedLSN > before {
				return
			}
			before = max(before, status.RecordedLSN)
		}
		select {
		case <-p.Ended():
			return
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the relay is not at work after a minute: state %q, %v", status.State, err)
		}
	}
}

// failpointNames finds every call of Failpoint in the program's source, so that
// a new point is tested without being listed anywhere.
func failpointNames(t *testing.T, module string) []string {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(module, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "cdctest" || entry.Name() == "testdata" || path != module && strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		return addFailpoints(names, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(names))
}

func addFailpoints(names map[string]bool, path string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 || calledName(call) != "Failpoint" {
			return true
		}
		literal, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			err = fmt.Errorf("%s: the name of a fail-point is not a literal", path)
			return true
		}
		name, unquoteErr := strconv.Unquote(literal.Value)
		if unquoteErr != nil {
			err = fmt.Errorf("%s: %w", path, unquoteErr)
		}
		names[name] = true
		return true
	})
	return err
}

func calledName(call *ast.CallExpr) string {
	switch called := call.Fun.(type) {
	case *ast.Ident:
		return called.Name
	case *ast.SelectorExpr:
		return called.Sel.Name
	}
	return ""
}
