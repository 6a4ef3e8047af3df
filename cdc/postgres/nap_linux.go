package postgres

import (
	"syscall"
	"time"
)

// nap sleeps for less than a millisecond where need be; the runtime's timers
// round up to one when nothing else goes on.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
