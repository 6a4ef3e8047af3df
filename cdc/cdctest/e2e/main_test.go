package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

func TestMain(m *testing.M) {
	code := cdctest.Main(m)
	if err := built.remove(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: remove the built programs:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// programs are the built commands; all tests of this binary share them.
type programs struct {
	mu  sync.Mutex // guards dir; held while they are built
	dir string
}

var built programs

// program returns the path of a command by its name.
func program(t testing.TB, name string) string {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator),
			"./cmd/cdc-relay", "./cmd/payment-api", "./cmd/notifier", "./cdc/cdctest/e2e/fakeslack")
		cmd.Dir = relaytest.ModuleDir(t)
		if output, err := cmd.CombinedOutput(); err != nil {
			os.RemoveAll(dir)
			t.Fatalf("go build: %v\n%s", err, output)
		}
		built.dir = dir
	}
	return filepath.Join(built.dir, name)
}

// programOf is a command line, which begins with the command's name, with its
// settings.
func programOf(t testing.TB, line, env []string) relaytest.Program {
	t.Helper()
	argv := append([]string{program(t, line[0])}, line[1:]...)
	return relaytest.Program{Name: strings.Join(line, " "), Argv: argv, Env: env}
}

func (p *programs) remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}
