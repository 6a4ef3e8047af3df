//go:build ops

package main

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// screenshot makes TestThePageInABrowser write the README's picture:
//
//	go test -tags ops ./cmd/demo -run TestThePageInABrowser -args -screenshot
var screenshot = flag.Bool("screenshot", false, "write docs/demo.png and docs/demo-phone.png")

// browse runs headless Chromium to its end.
func browse(t *testing.T, size, url string, action ...string) string {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("Chromium is missing: %v; apt-get install chromium", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--window-size=" + size,
		"--virtual-time-budget=2000", "--run-all-compositor-stages-before-draw",
	}
	output, err := exec.CommandContext(ctx, chromium, append(append(args, action...), url)...).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(output)
}

func TestThePageInABrowser(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, ended := &output{}, make(chan int, 1)
	go func() { ended <- Main(ctx, []string{"--listen", "127.0.0.1:0"}, nil, out, out) }()
	defer func() {
		stop()
		if code := <-ended; code != exitFine {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	}()
	url := awaitPage(t, out, ended) + "/?still"
	dom := browse(t, "1280,900", url, "--dump-dom")
	row := regexp.MustCompile(`class="step req">201 <small>\d+ ms</small></span><i>→</i><span class="step lsn">[0-9A-F]+/[0-9A-F]+</span><i>→</i>` +
		`<span class="step rec">payment-event\[[0-5]\]@\d+ <small>[^<]*</small></span><i>→</i><span class="step end done">Slack ✓`)
	if !row.MatchString(dom) {
		t.Errorf("no payment is shown from the request to Slack in:\n%s", dom)
	}
	for _, want := range []string{"Payment completed", `<b>cdc-relay</b><span>streaming</span>`, `<b>0</b><span>missing</span>`} {
		if !eventuallyInDOM(t, dom, url, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	if *screenshot {
		takePictures(t, strings.TrimSuffix(url, "/?still"), url)
	}
}

// eventuallyInDOM looks again for what comes with the first audit.
func eventuallyInDOM(t *testing.T, dom, url, want string) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(dom, want); dom = browse(t, "1280,900", url, "--dump-dom") {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// takePictures breaks everything once, so that there is something to see.
func takePictures(t *testing.T, page, url string) {
	t.Helper()
	for _, key := range []string{"k", "b", "p", "k"} {
		press(t, page, key)
		time.Sleep(5 * time.Second) // the chart needs time to pass, not an event
	}
	if err := os.MkdirAll("docs", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]string{"demo.png": "1280,900", "demo-phone.png": "390,844"} {
		path, err := filepath.Abs(filepath.Join("docs", name))
		if err != nil {
			t.Fatal(err)
		}
		browse(t, size, url, "--screenshot="+path)
		if info, err := os.Stat(path); err != nil || info.Size() < 10_000 {
			t.Errorf("%s is no picture: %v", name, err)
		}
	}
}
