package cdctest

import (
	"testing"
	"time"
)

// Pause waits, or fails the test when it is over.
func Pause(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
