package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// clockTicks per second of /proc/<pid>/stat. (proc(5): sysconf(_SC_CLK_TCK),
// which is 100 on every Linux of today.)
const clockTicks = 100

// sampleEvery is the time between two looks at a process. What it used after
// the last look before its end is missed.
const sampleEvery = 20 * time.Millisecond

// processWatch follows one process through /proc; where there is none, its
// figures stay 0.
type processWatch struct {
	quit  chan struct{}
	ended sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	firstCPU time.Duration
	lastCPU  time.Duration
	known    bool
	rss      int64
}

// watchProcess asks for the process id until it is known (not 0).
func watchProcess(find func() int) *processWatch {
	w := &processWatch{quit: make(chan struct{})}
	w.ended.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		pid := 0
		for {
			if pid == 0 {
				pid = find()
			}
			if pid != 0 {
				w.sample(pid)
			}
			select {
			case <-tick.C:
			case <-w.quit:
				return
			}
		}
	})
	return w
}

// watchWalsender follows the process that serves the slot.
func (b *bed) watchWalsender(ctx context.Context, database, slot string) *processWatch {
	return watchProcess(func() int {
		conn, err := b.connect(ctx, database)
		if err != nil {
			return 0
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var pid int
		err = conn.QueryRow(ctx, "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1", pgx.QueryExecModeExec, slot).Scan(&pid)
		if err != nil {
			return 0
		}
		return pid
	})
}

func (w *processWatch) sample(pid int) {
	cpu, okCPU := processCPU(pid)
	rss, okRSS := processPeakRSS(pid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if okCPU {
		if !w.known {
			w.firstCPU, w.known = cpu, true
		}
		w.lastCPU = cpu
	}
	if okRSS {
		w.rss = rss
	}
}

func (w *processWatch) cpu() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastCPU - w.firstCPU
}

func (w *processWatch) peakRSS() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rss
}

func (w *processWatch) stop() {
	close(w.quit)
	w.ended.Wait()
}

// processCPU reads user and system time. (proc_pid_stat(5): fields 14 and 15;
// the second field, the name in parentheses, may contain anything.)
func processCPU(pid int) (time.Duration, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, false
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if errUser != nil || errSystem != nil {
		return 0, false
	}
	return time.Duration(user+system) * time.Second / clockTicks, true
}

// processPeakRSS reads VmHWM. The rusage of a child would do, but it starts
// from the memory of the process that forked it.
func processPeakRSS(pid int) (int64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10, true
		}
	}
	return 0, false
}

// machineIdle is for how long processors had nothing to do, of all of them
// together; what other machines took from them (steal) is not idle. 0 where it
// is not known. (proc_stat(5): idle and iowait of the line "cpu".)
func machineIdle() time.Duration {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system, idle, iowait int64
	if _, err := fmt.Sscanf(string(data), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &iowait); err != nil {
		return 0
	}
	return time.Duration(idle+iowait) * time.Second / clockTicks
}

// ownCPU is what this process used so far.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
