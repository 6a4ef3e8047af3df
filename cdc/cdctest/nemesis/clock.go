package nemesis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// clockVariable names the file that a relay built by BuildWithClock reads its
// jumps from.
const clockVariable = "CDC_TEST_CLOCK"

// clockSource is added to the standard library's package time. The wall clock
// is moved by as many seconds as the file says; the monotonic one, and with it
// every timer, is not, exactly as when an administrator or NTP steps the clock.
//
// The file is mapped: timers ask for the time where a system call is forbidden.
const clockSource = `

var stepped = mapSteps()

func mapSteps() *int64 {
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("open " + name + ": " + err.Error())
	}
	defer syscall.Close(fd)
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map " + name + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}

func steppedSeconds() int64 { return atomic.LoadInt64(stepped) }
`

// BuildWithClock returns a relay whose wall clock can jump: cdc-relay itself,
// linked with a package time whose Now looks into a file. No line of the relay
// or its libraries is changed, and none can escape.
func BuildWithClock(t testing.TB) string {
	t.Helper()
	output, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	library := filepath.Join(strings.TrimSpace(string(output)), "src", "time", "time.go")
	name, err := filepath.Rel(relaytest.ModuleDir(t), library)
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	text := relaytest.ReplaceOnce(t, name, now, now+"\tsec += steppedSeconds()\n")
	const imports = "import (\n"
	if strings.Count(text, imports) != 1 {
		t.Fatalf("%s does not import as it used to", library)
	}
	text = strings.Replace(text, imports, imports+"\t\"sync/atomic\"\n\t\"syscall\"\n\t\"unsafe\"\n", 1)
	return relaytest.BuildOverlay(t, map[string]string{name: text + clockSource})
}

// clock is what one replica reads.
type clock struct{ path string }

func newClock(t testing.TB) clock {
	c := clock{path: filepath.Join(t.TempDir(), "clock")}
	if err := c.step(0); err != nil {
		t.Fatal(err)
	}
	return c
}

// step moves the clock to so far from the true time. The whole number is
// written at once, in the order of this machine's bytes, over the mapped one.
func (c clock) step(by time.Duration) error {
	file, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("step the clock: %w", err)
	}
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0)
	return errors.Join(err, file.Close())
}

func (c clock) environment() string { return clockVariable + "=" + c.path }

// jumps of a wall clock, as NTP and people make them.
var jumps = []time.Duration{
	-24 * time.Hour, -time.Hour, -5 * time.Second, 5 * time.Second, 30 * time.Minute, 3 * time.Hour, 400 * 24 * time.Hour,
}

// jumpClock makes two jumps, there and back. A relay goes on while its clock is
// wrong; nothing else fails then, so that has to be seen.
func jumpClock(t testing.TB, w *world) time.Time {
	i, jump := w.active(), jumps[w.rng.IntN(len(jumps))]
	w.step(t, i, jump)
	for range 2 {
		t.Logf("with the clock off by %s: back after %s", jump, w.await(t, time.Now(), "a jump of the clock by "+jump.String()).Round(time.Millisecond))
		cdctest.Pause(t, w.length()/2)
	}
	w.step(t, i, 0)
	return time.Now()
}

// step moves the clock of a replica, and waits until it tells another time.
func (w *world) step(t testing.TB, i int, to time.Duration) {
	t.Helper()
	if err := w.clocks[i].step(to); err != nil {
		t.Fatal(err)
	}
	for ends := time.Now().Add(patience); ; cdctest.Pause(t, 20*time.Millisecond) {
		off, err := clockOffset(t.Context(), w.relays[i].Addr)
		if err == nil && (off-to).Abs() < 3*time.Second {
			return
		}
		if time.Now().After(ends) {
			t.Fatalf("the clock of replica %d was moved by %s, but is off by %s: %v", i, to, off, err)
		}
	}
}

// clockOffset asks a relay for the time, which every HTTP answer tells.
func clockOffset(ctx context.Context, addr string) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/livez", nil)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	told, err := http.ParseTime(response.Header.Get("Date"))
	return time.Until(told), err
}
