package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// reader is what is measured.
type reader struct {
	name string
	// seat makes what one measurement needs in the database: slot and topic. It
	// comes before the rows.
	seat func(ctx context.Context, b *bed, d database) (*seat, error)
	log  func() string // the end of it, for errors; may be nil
	// steady says whether it can run under a load: latency and idle CPU are
	// measured.
	steady bool
}

// seat is a reader's place in one database.
type seat struct {
	slot     string
	topic    string
	idHeader string // of the event id
	// drain reads the backlog once.
	drain func(ctx context.Context, backlog backlog) (drain, error)
	// start lets it read until the running is stopped.
	start func(ctx context.Context) (running, error)
}

// running is a reader under a load.
type running struct {
	pid     int
	stop    func() error
	failure func() error // why it does not work; nil while it does
}

// backlog is what is drained.
type backlog struct {
	shape shape
	rows  int
	bytes int     // of a payload
	end   cdc.LSN // lies behind it
}

// readers returns what is compared, the reference first.
func (o options) readers(debezium []reader) []reader {
	base := variant{compression: o.codecs[0], delivery: o.delivery[0]}
	all := []reader{discardReader(way{}), countingReader(base.as("relay, counting")), relayReader(base.as("relay"))}
	for _, w := range o.ways {
		elsewhere := base.as(w.of("relay"))
		elsewhere.way, elsewhere.steady = w, false
		all = append(all, discardReader(w), relayReader(elsewhere))
	}
	for _, codec := range o.codecs[1:] {
		compressed := base.as("relay, " + codec)
		compressed.compression, compressed.steady = codec, false
		all = append(all, relayReader(compressed))
	}
	for _, mode := range o.delivery[1:] {
		other := base.as("relay, " + mode)
		other.delivery = mode
		all = append(all, relayReader(other))
	}
	return append(all, debezium...)
}

// steady returns those readers that can run under a load.
func steady(all []reader) (some []reader) {
	for _, r := range all {
		if r.steady {
			some = append(some, r)
		}
	}
	return some
}

// inTurn returns the readers of one run. Each run begins with another one, so
// that none always comes first.
func inTurn[E any](all []E, run int) []E {
	first := run % len(all)
	return append(append([]E{}, all[first:]...), all[:first]...)
}

// variant is one configuration of the relay.
type variant struct {
	name        string
	steady      bool
	way         way
	compression string
	delivery    string
	topics      int // 0: one
	partitions  int // of each topic; 0: as everywhere
}

func (v variant) as(name string) variant {
	v.name, v.steady = name, true
	return v
}

func relayReader(v variant) reader {
	return reader{name: v.name, steady: v.steady, seat: func(ctx context.Context, b *bed, d database) (*seat, error) {
		r, err := b.newRelay(ctx, d, v)
		if err != nil {
			return nil, err
		}
		return &seat{
			slot: r.slot, topic: r.topics[0], idHeader: "ce_id",
			drain: func(ctx context.Context, backlog backlog) (drain, error) { return b.relayBacklog(ctx, r, backlog) },
			start: func(ctx context.Context) (running, error) { return b.startRelay(ctx, r) },
		}, nil
	}}
}

// startRelay runs the relay until it is stopped.
func (b *bed) startRelay(ctx context.Context, r *relay) (running, error) {
	cmd := exec.CommandContext(ctx, b.binary, "run", "--config", r.config)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return running{}, err
	}
	ended := make(chan struct{})
	var endedErr error // valid after ended
	go func() {
		endedErr = cmd.Wait()
		close(ended)
	}()
	failure := func() error {
		select {
		case <-ended:
			return fmt.Errorf("the relay has ended: %w\n%s", endedErr, output.String())
		default:
			return nil
		}
	}
	// Once it answers it can be stopped in good order, and not before.
	for failure() == nil {
		conn, err := net.Dial("tcp", r.admin)
		if err == nil {
			_ = conn.Close() // nothing was asked
			break
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return running{}, err
		}
	}
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-ended
		if endedErr != nil {
			return fmt.Errorf("%w\n%s", endedErr, output.String())
		}
		return nil
	}
	return running{pid: cmd.Process.Pid, stop: stop, failure: failure}, nil
}

// database has an outbox, a publication, and a slot that others are copied from.
type database struct {
	name  string
	mould string
}

func (b *bed) newDatabase(ctx context.Context) (database, error) {
	d := database{name: fmt.Sprintf("bench_%d", b.relays)}
	if err := b.exec(ctx, "postgres", "CREATE DATABASE "+d.name); err != nil {
		return d, err
	}
	r, err := b.newRelay(ctx, d, variant{compression: "none", delivery: "exactly-once"})
	if err != nil {
		return d, err
	}
	d.mould = r.slot
	return d, b.exec(ctx, d.name, helpers()...)
}

// copySlot makes a slot at the position of the mould.
func (b *bed) copySlot(ctx context.Context, d database, slot string) error {
	return b.exec(ctx, d.name, fmt.Sprintf("SELECT pg_copy_logical_replication_slot('%s', '%s')", d.mould, slot))
}

// dropDatabase drops a database and its slots, which would keep the WAL of what
// follows.
func (b *bed) dropDatabase(ctx context.Context, d database) error {
	conn, err := b.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A reader that was stopped just now may hold its slot a moment longer.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		var active int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_replication_slots WHERE database = $1 AND active", d.name).Scan(&active); err != nil {
			return err
		}
		if active == 0 {
			break
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%d slots of database %s are still in use: %w", active, d.name, ctx.Err())
		}
	}
	return b.exec(ctx, "postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+d.name+"'",
		"DROP DATABASE "+d.name+" WITH (FORCE)")
}
