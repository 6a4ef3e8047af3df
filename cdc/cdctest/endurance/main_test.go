package endurance

import (
	"os"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

func TestMain(m *testing.M) { os.Exit(relaytest.Main(m)) }
