package monitoring

import (
	"os"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }
