package nemesis

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
)

// fault is one kind. inject makes one of them, returns when it is over, and
// tells from when on the recovery counts.
type fault struct {
	name   string
	real   bool // only an Apache Kafka can stand it
	clock  bool // only a binary made by BuildWithClock can meet it
	inject func(t testing.TB, w *world) time.Time
}

// faults are the cards of the deck.
func (w *world) faults() []fault {
	all := slices.Concat(processFaults(), linkFaults(), messageFaults())
	return slices.DeleteFunc(all, func(f fault) bool {
		return f.real && !w.Kafka.Real() || f.clock && !w.Clock || len(w.Only) > 0 && !slices.Contains(w.Only, f.name)
	})
}

func (w *world) kindNames() []string {
	var names []string
	for _, f := range w.faults() {
		names = append(names, f.name)
	}
	return names
}

// length of a fault: most are over before anybody's timeout, some are not. The
// longest outlasts wal_sender_timeout, the transaction timeout and both together.
func (w *world) length() time.Duration {
	if w.rng.IntN(5) < 3 {
		return time.Duration(200+w.rng.IntN(1300)) * time.Millisecond
	}
	return time.Duration(3500+w.rng.IntN(4500)) * time.Millisecond
}

// active is the replica that streams, else any.
func (w *world) active() int {
	for i, relay := range w.relays {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		status, err := relay.Status(ctx)
		cancel()
		if err == nil && status.State == cdc.StateStreaming {
			return i
		}
	}
	return w.rng.IntN(len(w.relays))
}

// processFaults end, stop or mislead processes.
func processFaults() []fault {
	return []fault{
		{name: "relay kill -9", inject: killRelay},
		{name: "relay SIGSTOP", inject: pauseRelay},
		{name: "relay clock jump", clock: true, inject: jumpClock},
		{name: "postgres crash", inject: restartPostgres("immediate")},
		{name: "postgres fast restart", inject: restartPostgres("fast")},
		{name: "walsender terminated", inject: terminateWalsender},
		{name: "broker stop", inject: stopBroker},
		{name: "broker kill -9", real: true, inject: killBroker},
	}
}

func killRelay(_ testing.TB, w *world) time.Time {
	i := w.active()
	began := time.Now()
	w.kill(i)
	return began
}

func (w *world) kill(i int) {
	if w.relays[i].Kill() {
		w.kills[i]++
	}
}

func pauseRelay(t testing.TB, w *world) time.Time {
	relay := w.relays[w.active()]
	relay.Signal(syscall.SIGSTOP)
	cdctest.Pause(t, w.length())
	relay.Signal(syscall.SIGCONT)
	return time.Now()
}

func restartPostgres(mode string) func(testing.TB, *world) time.Time {
	return func(t testing.TB, w *world) time.Time {
		w.Postgres.Stop(t, mode)
		if w.rng.IntN(2) == 0 {
			cdctest.Pause(t, w.length()/2)
		}
		w.Postgres.Start(t)
		return time.Now()
	}
}

func terminateWalsender(t testing.TB, w *world) time.Time {
	conn := w.Postgres.Connect(t, w.env.Database)
	defer conn.Close(context.Background())
	began := time.Now()
	_, err := conn.Exec(t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", w.env.Slot)
	if err != nil {
		t.Fatal(err)
	}
	return began
}

// stopBroker stops it in good order, an Apache Kafka not while a transaction is
// being decided: a cluster of one node may come back without a marker, see
// KafkaServer.Stop. So requests that begin transactions or fence them are held
// before, until those that can end have ended; what is left open is open still.
func stopBroker(t testing.TB, w *world) time.Time {
	return w.bringDown(t, func() {
		w.Kafka.Stop(t)
		if w.rng.IntN(2) == 0 {
			cdctest.Pause(t, w.length()/2)
		}
	})
}

func killBroker(t testing.TB, w *world) time.Time {
	return w.bringDown(t, func() { w.Kafka.Kill(t) })
}

func (w *world) bringDown(t testing.TB, down func()) time.Time {
	if w.Kafka.Real() {
		for _, name := range []string{chaosproxy.Produce, chaosproxy.InitProducerID} {
			defer w.toKafka.Add(chaosproxy.Rule{Message: name, Direction: chaosproxy.ToServer, Action: chaosproxy.Hold}).Remove()
		}
		w.Kafka.AwaitMarkers(t, w.env.Topic, w.env.PositionTopic)
	}
	down()
	w.toKafka.Cut() // what was held must not reach the next life
	w.startBroker(t)
	return time.Now()
}

// startBroker is patient: beside everything else on two cores, a Java server
// may take longer than it is given to start.
func (w *world) startBroker(t testing.TB) {
	t.Helper()
	var err error
	for range 3 {
		if err = w.Kafka.Server().Start(t.Context()); err == nil {
			return
		}
		t.Logf("the broker did not start in time, once more: %v", err)
	}
	t.Fatal(err)
}
