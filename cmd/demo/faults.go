package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// faults break the path on purpose.
type faults struct {
	relay   *process
	servers *servers
	watch   *watch
	outage  time.Duration // of the broker

	mu     sync.Mutex // held while a server is down: one outage at a time
	closed bool       // guarded by mu: the servers are on their way out

	count                     sync.Mutex // guards the fields below
	kills, outages, restarted int
}

var errClosed = errors.New("the demo ends")

// close waits for an outage to end and permits no other.
func (f *faults) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// brokerOutage is how long the key b stops the broker.
const brokerOutage = 3 * time.Second

// killRelay is kill -9; the process is started again at once.
func (f *faults) killRelay(ctx context.Context) error {
	for {
		if pid := f.relay.kill(); pid != 0 {
			f.add(&f.kills)
			f.watch.fault("kill", fmt.Sprintf("kill -9 %d: the relay is gone and starts again", pid))
			return nil
		}
		if !sleep(ctx, restartPause) {
			return errors.New("kill the relay: it did not run")
		}
	}
}

// stopBroker stops the broker for a while.
func (f *faults) stopBroker(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	f.watch.fault("broker", fmt.Sprintf("the broker is down for %s", f.outage))
	f.watch.down("kafka", true)
	defer f.watch.down("kafka", false)
	if err := f.servers.kafka.Stop(); err != nil {
		return err
	}
	sleep(ctx, f.outage)
	if err := f.servers.kafka.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	f.add(&f.outages)
	return nil
}

// restartPostgres is a crash and a recovery.
func (f *faults) restartPostgres(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	f.watch.fault("postgres", "Postgres crashes and recovers")
	f.watch.down("postgres", true)
	defer f.watch.down("postgres", false)
	if err := f.servers.postgres.Stop(cdctest.StopImmediate); err != nil {
		return err
	}
	if err := f.servers.postgres.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	f.add(&f.restarted)
	return nil
}

func (f *faults) add(counter *int) {
	f.count.Lock()
	defer f.count.Unlock()
	*counter++
}

// done returns how many faults there were.
func (f *faults) done() (kills, outages, restarted int) {
	f.count.Lock()
	defer f.count.Unlock()
	return f.kills, f.outages, f.restarted
}

// inject spreads the faults of --check over the duration.
func (f *faults) inject(ctx context.Context, duration time.Duration) error {
	began := time.Now()
	for _, step := range []struct {
		at float64
		do func(context.Context) error
	}{
		{0.15, f.killRelay}, {0.28, f.stopBroker}, {0.48, f.killRelay}, {0.58, f.restartPostgres}, {0.72, f.killRelay}, {0.85, f.killRelay},
	} {
		if !sleep(ctx, time.Until(began.Add(time.Duration(step.at*float64(duration))))) {
			return nil
		}
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}
