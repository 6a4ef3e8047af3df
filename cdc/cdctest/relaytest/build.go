package relaytest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// command is the package that is built.
const command = "./cmd/cdc-relay"

// Main is cdctest.Main, and removes the built binaries.
func Main(m *testing.M) int {
	code := cdctest.Main(m)
	if err := built.remove(); err != nil {
		fmt.Fprintln(os.Stderr, "relaytest: remove the built binaries:", err)
		code = max(code, 1)
	}
	return code
}

// builds are the binaries of this test binary, by the flags they were built
// with: linking takes seconds, and every test wants the same few.
type builds struct {
	mu     sync.Mutex // guards the fields below; held while a binary is built
	dir    string
	byKey  map[string]string
	number int
}

var built builds

func (b *builds) remove() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" {
		return nil
	}
	dir := b.dir
	b.dir, b.byKey = "", nil
	return os.RemoveAll(dir)
}

// Build returns the path of cdc-relay built with the given build tags.
func Build(t testing.TB, tags ...string) string {
	t.Helper()
	var flags []string
	if len(tags) > 0 {
		flags = []string{"-tags", strings.Join(tags, ",")}
	}
	path, err := built.build(ModuleDir(t), flags)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// BuildOverlay returns cdc-relay built with some of its source files replaced:
// the keys are paths below the module's directory, the values their new texts.
func BuildOverlay(t testing.TB, overlay map[string]string) string {
	t.Helper()
	module := ModuleDir(t)
	replace := map[string]string{}
	dir := t.TempDir()
	for name, text := range overlay {
		replacement := filepath.Join(dir, strings.ReplaceAll(name, string(filepath.Separator), "_"))
		if err := os.WriteFile(replacement, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(module, name)] = replacement
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	listPath := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(listPath, list, 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := built.build(module, []string{"-overlay", listPath})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ReplaceOnce returns the text of a source file of this module in which old,
// which must be there exactly once, is replaced. An overlay that silently
// changes nothing would prove nothing.
func ReplaceOnce(t testing.TB, name, old, replacement string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(ModuleDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%s contains %d times what is to be replaced, want once:\n%s", name, n, old)
	}
	return strings.Replace(string(text), old, replacement, 1)
}

func (b *builds) build(module string, flags []string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := strings.Join(flags, " ")
	if path, ok := b.byKey[key]; ok {
		return path, nil
	}
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "relaytest-")
		if err != nil {
			return "", fmt.Errorf("make a directory for binaries: %w", err)
		}
		b.dir, b.byKey = dir, map[string]string{}
	}
	b.number++
	path := filepath.Join(b.dir, fmt.Sprintf("cdc-relay-%d", b.number))
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), command)...)
	cmd.Dir = module
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", key, err, output)
	}
	b.byKey[key] = path
	return path, nil
}

// ModuleDir returns the directory of go.mod.
func ModuleDir(t testing.TB) string {
	t.Helper()
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	return strings.TrimSpace(string(output))
}
