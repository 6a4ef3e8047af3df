package cdc

import "time"

// shutdownSigns recognises a server that waits for us to end: it asks again
// and again for the same WAL end although it was answered.
type shutdownSigns struct {
	walEnd LSN
	since  time.Time
	asked  int
}

func (s *shutdownSigns) seen(walEnd LSN, lastStatus, now time.Time) bool {
	if walEnd != s.walEnd || now.Sub(s.since) > 5*time.Second {
		*s = shutdownSigns{walEnd: walEnd, since: now}
		return false
	}
	if lastStatus.After(s.since) {
		s.asked++
	}
	return s.asked >= 2
}
