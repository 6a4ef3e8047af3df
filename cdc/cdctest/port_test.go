package cdctest_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// printAddresses makes the test binary print addresses instead of testing.
const printAddresses = "CDCTEST_PRINT_ADDRESSES"

// Nobody listens at the addresses here: a server that is stopped for a while has
// to find its own free nevertheless.
func TestNoAddressIsGivenTwice(t *testing.T) {
	if os.Getenv(printAddresses) != "" {
		for range 200 {
			t.Log("address", cdctest.Address(t))
		}
		return
	}
	given := map[string]bool{}
	give := func(address string) {
		if given[address] {
			t.Errorf("%s is given twice", address)
		}
		given[address] = true
	}
	for range 200 {
		give(cdctest.Address(t))
	}
	// Processes that end give their addresses back, so each is compared with
	// this one only.
	mine := given
	for range 5 {
		given = map[string]bool{}
		for address := range mine {
			give(address)
		}
		var out bytes.Buffer
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env, cmd.Stdout = append(os.Environ(), printAddresses+"=1"), &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if _, address, ok := strings.Cut(strings.TrimSpace(line), "address "); ok {
				give(address)
			}
		}
		if len(given) != 400 {
			t.Errorf("%d addresses, not 400", len(given))
		}
	}
}
