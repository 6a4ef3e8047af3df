package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// lagInterval is how often the relay is asked for its status.
const lagInterval = 500 * time.Millisecond

// demo is everything that runs.
type demo struct {
	options
	out     *terminal
	dir     string // binaries, configuration, logs
	began   time.Time
	watch   *watch
	servers *servers
	ports   ports
	page    *page

	api, relay, notifier *process
	observer             *observer
	auditor              *auditor
	faults               *faults
	load                 *load
}

// runDemo builds the parts, tells the story, and takes everything away again.
func runDemo(ctx context.Context, o options, stdin *os.File, stdout, stderr io.Writer) int {
	d := &demo{options: o, began: o.started(time.Now()), watch: newWatch()}
	code, err := d.prepareAndRun(ctx, stdin, stdout)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(stderr, "demo:", err)
		return max(code, exitFailure)
	}
	if ctx.Err() != nil && o.check {
		fmt.Fprintln(stderr, "demo: interrupted before the audit")
		return exitUnclean
	}
	return code
}

func (d *demo) prepareAndRun(ctx context.Context, stdin *os.File, stdout io.Writer) (code int, err error) {
	if d.dir, err = os.MkdirTemp("", "cdc-relay-demo-"); err != nil {
		return exitFailure, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	fmt.Fprintln(stdout, "building cdc-relay, payment-api and notifier; starting PostgreSQL and a Kafka-protocol broker ...")
	defer func() {
		if d.faults != nil {
			d.faults.close()
		}
		if d.servers != nil {
			err = errors.Join(err, d.servers.remove())
		}
	}()
	defer func() { err = errors.Join(err, d.ports.release()) }()
	if err := d.prepare(ctx); err != nil {
		return exitFailure, err
	}
	d.out = newTerminal(stdin, stdout)
	defer d.out.close()
	return d.run(ctx)
}

// prepare makes all that the processes need.
func (d *demo) prepare(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return build(groupCtx, d.dir) })
	group.Go(func() (err error) {
		d.servers, err = startServers(groupCtx)
		return err
	})
	err := group.Wait()
	if err != nil {
		return err
	}
	if d.ports, err = choosePorts(!strings.HasSuffix(d.listen, ":0")); err != nil {
		return err
	}
	if d.page, err = newPage(d.listen, d.watch); err != nil {
		return err
	}
	if err := d.servers.writeConfigs(d.dir, d.ports, "http://"+d.page.address()+slackPath); err != nil {
		return err
	}
	owner := []string{"PAYMENT_API_DSN=" + d.servers.dsn("postgres")}
	if err := command(ctx, d.program("payment-api"), owner, "migrate", "up"); err != nil {
		return err
	}
	if err := command(ctx, d.program("cdc-relay"), nil, "init", "--apply", "--config", filepath.Join(d.dir, "relay.yaml")); err != nil {
		return err
	}
	return d.assemble()
}

// assemble makes the parts of this process.
func (d *demo) assemble() error {
	d.api = &process{
		name: "payment-api", path: d.program("payment-api"), logPath: d.logPath("payment-api"),
		args: []string{"serve", "--listen", d.ports.api, "--admin-listen", d.ports.apiAdmin, "--relay-url", "http://" + d.ports.relayAdmin, "--drain-timeout", "3s"},
		env:  []string{"PAYMENT_API_DSN=" + d.servers.dsn("payment_app")},
	}
	d.relay = &process{name: "cdc-relay", path: d.program("cdc-relay"), logPath: d.logPath("cdc-relay"), args: []string{"run", "--config", filepath.Join(d.dir, "relay.yaml")}}
	d.notifier = &process{name: "notifier", path: d.program("notifier"), logPath: d.logPath("notifier"), args: []string{"run", "--migrate", "--config", filepath.Join(d.dir, "notifier.yaml")}}
	var err error
	if d.observer, err = newObserver(d.servers.kafka.Brokers(), d.watch); err != nil {
		return err
	}
	d.auditor = &auditor{outbox: d.servers.outboxConfig(), kafka: d.servers.kafkaConfig(), published: d.published, watch: d.watch}
	d.faults = &faults{relay: d.relay, servers: d.servers, watch: d.watch, outage: brokerOutage}
	d.load = newLoad("http://"+d.ports.api, d.servers.dsn("postgres"), d.options, d.watch)
	d.watch.onFault = func(text string) { fmt.Fprintln(d.out, "—", text) }
	if !d.check {
		d.watch.onPath = func(p path) { fmt.Fprintln(d.out, line(p)) }
	}
	return nil
}

func (d *demo) program(name string) string { return filepath.Join(d.dir, name) }
func (d *demo) logPath(name string) string { return filepath.Join(d.dir, name+".log") }

// run runs the parts beneath the story. Order of the end:
//
//  1. the load stops, and with an audit everything arrives
//  2. the relay stops (final), then the other processes and readers
//  3. the servers stop (prepareAndRun)
func (d *demo) run(ctx context.Context) (int, error) {
	services, stopServices := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServices()
	if err := d.ports.release(); err != nil {
		return exitFailure, fmt.Errorf("give the ports to the processes: %w", err)
	}
	group, running := errgroup.WithContext(services)
	relayCtx, stopRelay := context.WithCancel(running)
	defer stopRelay()
	relayEnded := make(chan struct{})
	story, quit := context.WithCancel(ctx)
	defer quit()
	defer context.AfterFunc(running, quit)()
	group.Go(func() error { defer close(relayEnded); return d.relay.run(relayCtx) })
	group.Go(func() error { return d.api.run(running) })
	group.Go(func() error { return d.notifier.run(running) })
	group.Go(func() error { return d.observer.run(running) })
	group.Go(func() error { return d.auditor.run(running) })
	group.Go(func() error { return d.askRelay(running) })
	group.Go(func() error { return d.page.run(running, d.act(story, quit)) })
	group.Go(func() error { return d.obeyKeys(running, d.act(story, quit)) })
	code, err := d.tell(story, func() { stopRelay(); <-relayEnded })
	stopServices()
	partErr := group.Wait()
	if partErr != nil {
		return exitFailure, partErr // it ended the story, whose own error follows from it
	}
	if story.Err() != nil && ctx.Err() == nil && code == exitFine {
		err = nil // q
	}
	return code, err
}

// tell is the story: load, faults, audit.
func (d *demo) tell(ctx context.Context, stopRelay func()) (int, error) {
	d.greet()
	if err := d.awaitReady(ctx); err != nil {
		return exitFine, err
	}
	began, seconds := time.Now(), 0.0
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	group, groupCtx := errgroup.WithContext(loadCtx)
	group.Go(func() error { return d.load.run(loadCtx, ctx) })
	group.Go(func() error { return d.tellFirst(groupCtx) })
	injected := make(chan struct{})
	if d.check {
		group.Go(func() error { defer close(injected); return d.faults.inject(groupCtx, d.duration) })
		group.Go(func() error { return d.tellProgress(groupCtx) })
	}
	group.Go(func() error {
		defer stopLoad()
		err := d.lasts(groupCtx, began, injected)
		seconds = time.Since(began).Seconds()
		return err
	})
	err := group.Wait()
	if ctx.Err() != nil || err != nil {
		fmt.Fprintln(d.out, summary(d.watch.snapshot()))
		return exitFine, err
	}
	fmt.Fprintln(d.out, "the load has stopped; waiting until everything has arrived, then judging ...")
	o, err := d.auditor.final(ctx, stopRelay)
	if err != nil && o.Committed == 0 {
		return exitUnclean, err
	}
	o.seconds, o.rolledBack = seconds, int(d.load.rolledBack.Load())
	o.kills, o.outages, o.restarts = d.faults.done()
	return d.conclude(&o, err)
}

// conclude prints the outcome and returns the exit code.
func (d *demo) conclude(o *outcome, err error) (int, error) {
	o.print(d.out)
	var missing []string
	if d.check {
		missing = demands{payments: d.minimum(), kills: 3, rolledBackPerSecond: 1}.unfulfilled(o)
	}
	for _, text := range missing {
		fmt.Fprintln(d.out, "not fulfilled:", text)
	}
	if err != nil || !o.faultless() || len(missing) > 0 {
		fmt.Fprintln(d.out, "NOT CLEAN")
		return exitUnclean, err
	}
	fmt.Fprintln(d.out, "CLEAN: every committed payment is in Kafka once, in commit order, and in Slack")
	return exitFine, nil
}

// minimum is the number of payments that a check needs: 2,000 in 20 seconds.
func (d *demo) minimum() int { return min(2000, int(100*d.duration.Seconds())) }

// lasts returns when the load has run long enough: for the duration, and for a
// check until the last fault is over and there are enough payments and rollbacks,
// at most ten times as long.
func (d *demo) lasts(ctx context.Context, began time.Time, injected <-chan struct{}) error {
	if d.duration == 0 {
		<-ctx.Done()
		return nil
	}
	sleep(ctx, time.Until(began.Add(d.duration)))
	if d.meanwhile != nil {
		select {
		case <-d.meanwhile:
		case <-ctx.Done():
		}
	}
	if !d.check {
		return nil
	}
	select {
	case <-injected:
	case <-ctx.Done():
	}
	for !d.enough(time.Since(began)) && time.Since(began) < 10*d.duration {
		if !sleep(ctx, retryInterval) {
			return nil
		}
	}
	return nil
}

// enough says whether a load of this length fulfils what a check demands of it,
// which is counted in whole seconds.
func (d *demo) enough(took time.Duration) bool {
	v := d.watch.snapshot()
	return v.Sent >= d.minimum() && float64(v.RolledBack) >= took.Seconds()+1
}

// tellFirst tells how long the first payment took to be seen on its whole way.
func (d *demo) tellFirst(ctx context.Context) error {
	for sleep(ctx, retryInterval/2) {
		if first := d.watch.first(); !first.IsZero() {
			seconds := first.Sub(d.began).Seconds()
			d.watch.firstAfter(seconds)
			fmt.Fprintf(d.out, "first payment on the page %.1f s after the start\n", seconds)
			return nil
		}
	}
	return nil
}

func (d *demo) tellProgress(ctx context.Context) error {
	for sleep(ctx, time.Second) {
		fmt.Fprintln(d.out, summary(d.watch.snapshot()))
	}
	return nil
}

// greet prints where everything is.
func (d *demo) greet() {
	fmt.Fprintf(d.out, `
  page           http://%s
  payment-api    http://%s/openapi.json   metrics http://%s/metrics
  cdc-relay      http://%s/status   metrics http://%s/metrics
  notifier       http://%s/metrics
  PostgreSQL %d   %s
  broker         %s
  logs           %s

`, d.page.address(), d.ports.api, d.ports.apiAdmin, d.ports.relayAdmin, d.ports.relayAdmin, d.ports.notifierAdmin,
		d.servers.postgres.Major(), d.servers.dsn("postgres"), d.servers.kafka.Brokers()[0], d.dir)
	if d.out.keys != nil {
		fmt.Fprintln(d.out, keysHelp)
	}
}

// awaitReady waits until the API answers and the relay streams.
func (d *demo) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		code, _ := get(ctx, "http://"+d.ports.apiAdmin+"/readyz", nil)
		if code == http.StatusOK && d.watch.snapshot().RelayState == "streaming" {
			return nil
		}
		if !sleep(ctx, retryInterval/2) {
			return fmt.Errorf("the parts are not ready: payment-api answers %d, the relay is %s; logs end:\n%s\n%s",
				code, d.watch.snapshot().RelayState, d.api.logTail(), d.relay.logTail())
		}
	}
}

// askRelay keeps the relay's state and the lag up to date.
func (d *demo) askRelay(ctx context.Context) error {
	for {
		var status struct {
			State       string   `json:"state"`
			RecordedLSN string   `json:"recorded_lsn"`
			LagSeconds  *float64 `json:"lag_seconds"`
		}
		if code, err := get(ctx, "http://"+d.ports.relayAdmin+"/status", &status); err != nil || code != http.StatusOK {
			status.State = "down"
		}
		d.relay.mu.Lock()
		lives := d.relay.lives
		d.relay.mu.Unlock()
		d.watch.sampleLag(status.State, status.RecordedLSN, status.LagSeconds, lives)
		d.watch.down("api", !d.api.running())
		d.watch.down("notifier", !d.notifier.running())
		pause := lagInterval
		if d.watch.first().IsZero() {
			pause = retryInterval // while everybody waits for the first payment
		}
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// published asks the relay whether everything committed up to lsn is in Kafka,
// and waits a second for it.
func (d *demo) published(ctx context.Context, lsn cdc.LSN) bool {
	code, err := get(ctx, fmt.Sprintf("http://%s/published?lsn=%s&timeout=1s", d.ports.relayAdmin, lsn), nil)
	return err == nil && code == http.StatusOK
}

// get fetches a URL; answer may be nil. No connection is kept: a process that
// was killed and the next one are different servers.
func get(ctx context.Context, url string, answer any) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close() //nolint:errcheck // only read from
	if answer == nil {
		return response.StatusCode, nil
	}
	return response.StatusCode, json.NewDecoder(response.Body).Decode(answer)
}
