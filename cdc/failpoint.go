//go:build !failpoints

package cdc

// Failpoint does nothing in this build. Built with the tag failpoints it kills
// the process at the named point between two effects, for the crash tests.
func Failpoint(string) {}
