//go:build !linux

package postgres

import "time"

// nap sleeps about as long as it is told.
func nap(d time.Duration) { time.Sleep(d) }
