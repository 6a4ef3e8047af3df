package halts_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// testsAtOnce is how many tests run at a time: they wait for servers and processes
// far more than they compute. -parallel on the command line wins.
const testsAtOnce = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", testsAtOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(relaytest.Main(m))
}
