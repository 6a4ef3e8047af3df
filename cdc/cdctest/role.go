package cdctest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// roleVariable names the environment variable that gives a re-executed binary
// its role.
const roleVariable = "CDC_CDCTEST_ROLE"

// The roles.
const (
	roleKeeper = "keeper" // runs one server process and ends it with the parent
	roleKfake  = "kfake"  // is a fake broker
)

// rolesHandled is set once RunRole was called. Without that call a re-executed
// binary would do the caller's work again, and again start a server.
var rolesHandled atomic.Bool

// RunRole does the work of a re-executed role and returns its exit code and
// true. In an ordinary process it returns false at once. Main calls it; other
// programs that use the servers call it first in main.
func RunRole() (code int, ran bool) {
	rolesHandled.Store(true)
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		return 0, false
	case roleKeeper:
		err = keep(os.Args[1:])
	case roleKfake:
		err = serveKfake(os.Args[1:])
	default:
		err = fmt.Errorf("unknown role %q", os.Getenv(roleVariable))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cdctest:", err)
		return 1, true
	}
	return 0, true
}

// helper is the parent's side of a re-executed process that is, or keeps, one
// server.
type helper struct {
	cmd      *exec.Cmd
	orders   io.WriteCloser // one per line; closed without any: the parent is gone
	hello    string         // the first line that the helper printed
	ended    chan struct{}  // closed when the helper has ended, and so its server
	endedErr error          // why; valid after ended
}

// startHelper executes this binary again in the given role. It returns when the
// helper has printed its first line, or has ended without one.
func startHelper(role string, log *os.File, args ...string) (*helper, error) {
	if !rolesHandled.Load() {
		return nil, errors.New("start a helper: TestMain does not call cdctest.Main, nor main cdctest.RunRole")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = log
	// A group of its own: the terminal's Ctrl-C is for the parent, which decides
	// in which order things stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start helper: %w", err)
	}
	h := &helper{cmd: cmd, orders: orders, ended: make(chan struct{})}
	line, _ := bufio.NewReader(output).ReadString('\n') // the end is seen by Wait
	h.hello = strings.TrimSpace(line)
	go func() {
		_, _ = io.Copy(io.Discard, output)
		h.endedErr = cmd.Wait()
		_ = orders.Close()
		close(h.ended)
	}()
	return h, nil
}

// running says whether the server has not ended.
func (h *helper) running() bool {
	if h == nil {
		return false
	}
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// end gives the helper an order that ends the server (to the keeper: a signal's
// number), and waits until it has ended.
func (h *helper) end(order string) error {
	if !h.running() {
		return nil
	}
	_, err := fmt.Fprintln(h.orders, order) // fails where the helper has ended just now
	select {
	case <-h.ended:
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("end a server: still up after %s", stopTimeout), err)
	}
}

// startKeeper runs command under a helper: in directory root, which the helper
// removes if this process ends first, as the unprivileged user where that is
// asked for, and ended by the signal orphanSignal in that case.
func startKeeper(log *os.File, root string, unprivileged bool, orphanSignal syscall.Signal, command ...string) (*helper, error) {
	args := []string{strconv.Itoa(int(orphanSignal)), strconv.FormatBool(unprivileged), root}
	return startHelper(roleKeeper, log, append(args, command...)...)
}

// signalOrder is the keeper's order to send a signal to its server.
func signalOrder(sig syscall.Signal) string { return strconv.Itoa(int(sig)) }

// keep is the helper: it runs a command, prints its process id, passes on the
// signals that are ordered on standard input, and returns when it has ended.
// When standard input ends the parent is gone: the server is ended and its
// files are removed. Arguments are those of startKeeper.
func keep(args []string) error {
	number, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read signal: %w", err)
	}
	orphanSignal, root, command := syscall.Signal(number), args[2], args[3:]
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = root
	cmd.Env = serverEnvironment()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if args[1] == "true" {
		cmd.SysProcAttr.Credential = serverCredential()
	}
	runtime.LockOSThread() // for endWithParent; never unlocked, the process ends first
	endWithParent(cmd.SysProcAttr, orphanSignal)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(command[0]), err)
	}
	fmt.Println(cmd.Process.Pid)
	orphaned, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		obey(os.Stdin, cmd.Process)
		close(orphaned)
	}()
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-orphaned:
	}
	_ = cmd.Process.Signal(orphanSignal) // it may have ended just now
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
	return removeServerDir(root)
}

// removeServerDir removes what newServerDir made, and nothing else.
func removeServerDir(root string) error {
	if !strings.HasPrefix(filepath.Base(root), tempPrefix) {
		return fmt.Errorf("refuse to remove %s", root)
	}
	return os.RemoveAll(root)
}

// newServerDir makes the directory that a server lives in.
func newServerDir() (string, error) {
	root, err := os.MkdirTemp(serverTempBase(), tempPrefix)
	if err != nil {
		return "", fmt.Errorf("make the server's directory: %w", err)
	}
	return root, ownByServer(root)
}

// obey passes on the ordered signals until the orders end.
func obey(orders io.Reader, process *os.Process) {
	lines := bufio.NewScanner(orders)
	for lines.Scan() {
		var sig int
		if _, err := fmt.Sscan(lines.Text(), &sig); err == nil {
			_ = process.Signal(syscall.Signal(sig)) // it may have ended just now
		}
	}
}

// tempPrefix begins the name of every directory that a server lives in.
const tempPrefix = "cdctest-"

// serverEnvironment has nothing that could change a server's behaviour, as PG*
// variables would.
func serverEnvironment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "JAVA_HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// logTail returns the last lines of a server's log, for errors.
func logTail(path string) string {
	const most = 4000
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-most):]))
}
