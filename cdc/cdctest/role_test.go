package cdctest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// holdVariable makes the test binary start one server of each kind and wait.
const holdVariable = "CDC_CDCTEST_HOLD"

// hold prints where the servers are, and waits to be killed.
func hold() int {
	postgres, err1 := cdctest.NewPostgresServer(cdctest.PostgresConfig{})
	kafka, err2 := cdctest.NewKfakeServer()
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		return 1
	}
	ctx := context.Background()
	if err := errors.Join(postgres.Start(ctx), kafka.Start(ctx)); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(filepath.Dir(postgres.LogPath()), fmt.Sprintf("127.0.0.1:%d", postgres.Port()), filepath.Dir(kafka.LogPath()), kafka.Brokers()[0])
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 1
}

func TestServersEndWithAKilledParent(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), holdVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // keeps it waiting
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n') // a failure shows in the line
	killErr := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if killErr != nil {
		t.Fatal(killErr)
	}
	fields := strings.Fields(line)
	if len(fields) != 4 {
		t.Fatalf("the process printed %q", line)
	}
	for i := 0; i < len(fields); i += 2 {
		dir, address := fields[i], fields[i+1]
		// One after the other: the address may be given to another test soon.
		eventually(t, address+" is closed", func() bool { return !reachable(address) })
		eventually(t, dir+" is removed", func() bool {
			_, err := os.Stat(dir)
			return errors.Is(err, fs.ErrNotExist)
		})
	}
}

func reachable(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
