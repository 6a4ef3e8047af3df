package main

import (
	"context"
	"fmt"
	"sync"
)

// keysHelp is what the keys do.
const keysHelp = "k = kill -9 the relay   b = stop the broker for 3 s   p = crash and restart Postgres   a = audit   q = quit"

// action does what a key of the terminal, or a button of the page, stands for.
// It returns when that is done.
type action func(key byte) error

// act returns the action; ctx ends what it began, quit ends the story.
func (d *demo) act(ctx context.Context, quit func()) action {
	return func(key byte) error {
		var err error
		switch key {
		case 'k':
			err = d.faults.killRelay(ctx)
		case 'b':
			err = d.faults.stopBroker(ctx)
		case 'p':
			err = d.faults.restartPostgres(ctx)
		case 'a':
			err = d.audit(ctx)
		case 'q', 3, 4: // Ctrl-C and Ctrl-D are bytes like others to a raw terminal
			quit()
		default:
			return fmt.Errorf("%q is no key", key)
		}
		if err != nil {
			fmt.Fprintln(d.out, err)
		}
		return err
	}
}

// audit waits until what is on its way has arrived, and tells the verdict.
func (d *demo) audit(ctx context.Context) error {
	v, err := d.auditor.settled(ctx, patience)
	text := "audit: exact"
	if err != nil || !v.exact() {
		text = "audit: NOT EXACT"
	}
	fmt.Fprintf(d.out, "%s, committed %d   in Kafka %d   missing %d   duplicate %d   out of order %d   never committed %d\n",
		text, v.Committed, v.Delivered, v.Missing, v.Duplicate, v.OutOfOrder, v.Phantom)
	v.printExamples(d.out)
	return err
}

// obeyKeys acts on the keys until ctx ends. A key does not wait for the one
// before it.
func (d *demo) obeyKeys(ctx context.Context, do action) error {
	var acting sync.WaitGroup
	defer acting.Wait()
	for {
		select {
		case key := <-d.out.keys:
			acting.Go(func() { _ = do(key) }) // the action tells its error
		case <-ctx.Done():
			return nil
		}
	}
}
