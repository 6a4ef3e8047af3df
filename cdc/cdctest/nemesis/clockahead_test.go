package nemesis

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// soon is far less than what the clocks are ahead by, and leaves a busy machine
// time for a takeover.
const soon = 45 * time.Second

// TestClocksAhead sets both replicas' clocks ahead of the broker's, further than
// it lets a timestamp be: what goes into Kafka carries the database server's
// time. Only a real broker refuses timestamps, and only where there is one is
// the time to build with another clock.
func TestClocksAhead(t *testing.T) {
	if !real() {
		return
	}
	cfg := Config{Seed: cdctest.Seed(t), Binary: BuildWithClock(t), Clock: true}
	cfg.Postgres, cfg.Kafka = servers(t)
	w := newWorld(t, cfg)
	w.await(t, time.Now(), "the start")
	for _, ahead := range []time.Duration{30 * time.Minute, 3 * time.Hour, 0} {
		for i := range w.relays {
			w.step(t, i, ahead)
		}
		if took := w.await(t, time.Now(), "the clocks were set "+ahead.String()+" ahead"); took > soon {
			t.Errorf("with both clocks %s ahead a row took %s", ahead, took)
		}
		w.relays[0].Kill() // a start with a wrong clock, too
		if took := w.await(t, time.Now(), "a kill with the clocks "+ahead.String()+" ahead"); took > soon {
			t.Errorf("after a kill with both clocks %s ahead a row took %s", ahead, took)
		}
	}
}
