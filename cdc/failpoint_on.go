//go:build failpoints

package cdc

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// The environment variable CDC_RELAY_FAILPOINT=name or name:n arms one point;
// the n-th time that it is reached (default the first) the process is killed
// by SIGKILL, so that no deferred function, flush or close softens the crash.
var (
	failpointName, failpointCount, _ = strings.Cut(os.Getenv("CDC_RELAY_FAILPOINT"), ":")
	failpointHits                    atomic.Int64
)

// Failpoint kills the process if the named point is armed and due.
func Failpoint(name string) {
	if name != failpointName {
		return
	}
	due, err := strconv.ParseInt(failpointCount, 10, 64)
	if err != nil {
		due = 1
	}
	if failpointHits.Add(1) == due {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
