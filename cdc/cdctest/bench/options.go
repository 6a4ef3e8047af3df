package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// The measurements.
const (
	measureDrain   = "drain"
	measureLatency = "latency"
	measureIdle    = "idle"
	measureGrowth  = "growth"
)

// options are the flags.
type options struct {
	measure  []string      // which measurements
	rows     int           // of each backlog
	runs     int           // of each measurement
	latency  time.Duration // measured per rate, after the warm-up
	warmUp   time.Duration // before each measurement of latency
	brokerUp time.Duration // of the broker's Java machine, once
	idle     time.Duration // over which idle CPU is measured
	rates    []int         // transactions per second at which latency is measured; 0: as many as the database takes
	output   string        // text or json
	ways     []way         // over which drains are measured beside loopback TCP
	codecs   []string      // compression; the first is everywhere, the others only beside it
	delivery []string      // modes, likewise

	debezium       bool          // also Debezium
	debeziumWarmUp time.Duration // of its Java machine, once

	growth growthOptions

	newKafka func() (*cdctest.KafkaServer, error)
}

// growthOptions are the factors of the measurement growth, one at a time over
// a base.
type growthOptions struct {
	rows       int   // of each backlog but those of backlogs
	backlogs   []int // rows
	topics     []int
	partitions []int
	sizes      []int // bytes of the payload
	plot       string
}

// maxGrowthPartitions bounds topics times their partitions: the broker has one
// node.
const maxGrowthPartitions = 2000

func apacheKafka() (*cdctest.KafkaServer, error) {
	return cdctest.NewApacheKafkaServer(cdctest.ApacheKafkaConfig{ForLoad: true})
}

func parse(args []string, stderr io.Writer) (options, error) {
	opts := options{newKafka: apacheKafka}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	measure := flags.String("measure", "drain,latency,idle", "what is measured: of drain, latency, idle and growth, with commas")
	flags.IntVar(&opts.rows, "rows", 1_000_000, "rows of each backlog")
	flags.IntVar(&opts.runs, "runs", 5, "runs of each measurement")
	flags.DurationVar(&opts.latency, "latency", 20*time.Second, "time over which latency is measured per rate")
	flags.DurationVar(&opts.warmUp, "warm-up", 5*time.Second, "time under load before each measurement of latency")
	flags.DurationVar(&opts.brokerUp, "broker-warm-up", time.Minute, "time under load before the broker is measured with")
	flags.DurationVar(&opts.idle, "idle", time.Minute, "time over which idle CPU is measured")
	rates := flags.String("rates", "100,1000,max", "transactions per second at which latency is measured; max: as many as the database takes")
	flags.StringVar(&opts.output, "o", "text", "output: text or json")
	socket := flags.Bool("socket", false, "drain over the Unix socket too")
	tls := flags.Bool("tls", false, "drain over TLS too")
	links := flags.String("link", "", "drain over a network of two hosts too: their round trips, with commas, such as 0s,1ms (Linux, root)")
	codecs := flags.String("compression", "none", "compression of the relay; more than one, with commas: drain with the others too")
	delivery := flags.String("delivery", "exactly-once", "delivery mode of the relay; more than one, with commas: measure drain and latency of the others too")
	flags.BoolVar(&opts.debezium, "debezium", false, "measure Debezium in Kafka Connect too, default and tuned (needs Java and Maven)")
	flags.DurationVar(&opts.debeziumWarmUp, "debezium-warm-up", time.Minute, "time under full load before Debezium is measured")
	growthRows := flags.Int("growth-rows", 200_000, "rows of each backlog of growth, but where the backlog grows")
	backlogs := flags.String("growth-backlogs", "10000,100000,1000000,10000000", "backlogs of growth, in rows")
	topics := flags.String("growth-topics", "1,10,100,1000", "topics of growth, of two partitions each")
	parts := flags.String("growth-partitions", "1,12,120", "partitions of growth, of one topic")
	sizes := flags.String("growth-sizes", "100,1000,10000,100000,1000000", "payloads of growth, in bytes")
	flags.StringVar(&opts.growth.plot, "plot", "", "file for a plot of growth, in SVG")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	opts.measure, opts.codecs, opts.delivery = strings.Split(*measure, ","), strings.Split(*codecs, ","), strings.Split(*delivery, ",")
	opts.growth.rows = *growthRows
	var errs [6]error
	opts.rates, errs[0] = numbers("-rates", strings.ReplaceAll(*rates, "max", "0"), 0)
	opts.growth.backlogs, errs[1] = numbers("-growth-backlogs", *backlogs, writers)
	opts.growth.topics, errs[2] = numbers("-growth-topics", *topics, 1)
	opts.growth.partitions, errs[3] = numbers("-growth-partitions", *parts, 1)
	if *socket {
		opts.ways = append(opts.ways, way{socket: true})
	}
	if *tls {
		opts.ways = append(opts.ways, way{tls: true})
	}
	opts.ways, errs[5] = appendLinks(opts.ways, *links)
	opts.growth.sizes, errs[4] = numbers("-growth-sizes", *sizes, minPayloadBytes)
	err := errors.Join(append(errs[:], opts.validate(flags.NArg()))...)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return opts, err
}

func (o options) validate(arguments int) error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("want "+format, args...))
		}
	}
	for _, what := range o.measure {
		want(slices.Contains([]string{measureDrain, measureLatency, measureIdle, measureGrowth}, what), "-measure of drain, latency, idle and growth, not %q", what)
	}
	want(o.rows >= writers && o.growth.rows >= writers, "-rows and -growth-rows of at least %d", writers)
	want(o.runs >= 1, "-runs of at least 1")
	want(o.latency >= time.Second && o.idle >= time.Second, "-latency and -idle of at least 1s")
	want(o.warmUp >= 0 && o.brokerUp >= 0 && o.debeziumWarmUp >= 0, "-warm-up, -broker-warm-up and -debezium-warm-up of at least 0s")
	want(o.output == "text" || o.output == "json", "-o text or json")
	want(slices.Max(append(o.growth.topics, 1))*topicPartitions <= maxGrowthPartitions && slices.Max(append(o.growth.partitions, 1)) <= maxGrowthPartitions,
		"at most %d partitions", maxGrowthPartitions)
	want(arguments == 0, "no arguments")
	return errors.Join(errs...)
}

// appendLinks appends a way for each round trip.
func appendLinks(ways []way, roundTrips string) ([]way, error) {
	if roundTrips == "" {
		return ways, nil
	}
	for _, word := range strings.Split(roundTrips, ",") {
		roundTrip, err := time.ParseDuration(word)
		if err != nil || roundTrip < 0 || roundTrip > time.Second {
			return nil, fmt.Errorf("want -link of round trips up to 1s, with commas, not %q", roundTrips)
		}
		ways = append(ways, way{link: true, roundTrip: roundTrip})
	}
	return ways, nil
}

// linked says whether a network of two hosts is needed.
func (o options) linked() bool {
	return slices.ContainsFunc(o.ways, func(w way) bool { return w.link })
}

// numbers reads integers with commas between them.
func numbers(name, text string, least int) ([]int, error) {
	var all []int
	for _, word := range strings.Split(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < least {
			return nil, fmt.Errorf("want %s of numbers from %d, with commas, not %q", name, least, text)
		}
		all = append(all, n)
	}
	return all, nil
}
