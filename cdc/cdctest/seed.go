package cdctest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// SeedVariable replays the load and the faults of an earlier run.
const SeedVariable = "CDC_TEST_SEED"

// Seed is a random one, which is logged, or that of the environment.
func Seed(t testing.TB) uint64 {
	t.Helper()
	value := os.Getenv(SeedVariable)
	if value == "" {
		n := rand.Uint64()
		t.Logf("%s=%d", SeedVariable, n)
		return n
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", SeedVariable, err)
	}
	return n
}
