//go:build linux

package endurance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// hugeTopicBytes is what the topic is made to take. A broker's default bound of a
// request (socket.request.max.bytes) is 104,857,600.
const hugeTopicBytes = 104_000_000

// maxHugeRowRSS bounds a relay that passes a row on. Three copies are alive at the
// same time: the frame from the wire, the row, and the request to the broker.
// A growing buffer may leave another one or two behind until the collector runs.
func maxHugeRowRSS(payloadBytes int) int64 { return 5*int64(payloadBytes) + 64<<20 }

// TestHugeRow: a row of 100 MB (16 MB in a short run). Where the topic does not take it the relay halts
// and says by how much; the slot keeps it. Once the topic takes it, it is
// delivered, byte for byte, and so is the row behind it.
func TestHugeRow(t *testing.T) {
	t.Parallel()
	megabytes := size(t, 16, 100, 100)
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t), Partitions: 1,
	})
	conn := e.Postgres.Connect(t, e.Database)
	payload := hugePayload(megabytes * 1_000_000)
	began := time.Now()
	insertHugeRow(t, conn, e.Topic, payload)
	t.Logf("inserted in %s", time.Since(began).Round(time.Millisecond))

	began = time.Now()
	p := relaytest.Start(t, e.Options())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := watchRSS(t, p)
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the topic takes 1 MiB: exit code %d after %s, peak RSS %s", code, time.Since(began).Round(time.Millisecond), mib(watch()))
	if code != 5 {
		t.Fatalf("exit code %d, want 5, a halt", code)
	}
	text := p.Stderr()
	for _, want := range []string{string(cdc.HaltBadRow), fmt.Sprintf("of about %d", megabytes), "takes 1048588", "max.message.bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("the relay does not say %q:\n%s", want, text)
		}
	}

	raise(t, e, "max.message.bytes", fmt.Sprint(hugeTopicBytes))
	began = time.Now()
	p = relaytest.Start(t, e.Options())
	watch = watchRSS(t, p)
	values := consumeHuge(t, e, 2)
	took, rss := time.Since(began), watch()
	t.Logf("%d MB, the topic takes it: visible %s after the start, peak RSS %s", megabytes, took.Round(time.Millisecond), mib(rss))
	if most := maxHugeRowRSS(len(payload)); rss > most {
		t.Errorf("peak RSS %s, want at most %s", mib(rss), mib(most))
	}
	if got, want := sha256.Sum256(values[0]), sha256.Sum256(payload); got != want {
		t.Errorf("a payload of %d bytes came, not the %d that were written", len(values[0]), len(payload))
	}
	if !bytes.Equal(values[1], []byte(`"behind"`)) {
		t.Errorf("behind it came %.100q", values[1])
	}
	if code := p.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d, want 0", code)
	}
}

// hugePayload is a JSON string that does not compress.
func hugePayload(bytes int) []byte {
	raw := make([]byte, (bytes-2)/4*3)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(raw) // never fails
	payload := make([]byte, 0, bytes)
	payload = append(payload, '"')
	payload = base64.StdEncoding.AppendEncode(payload, raw)
	return append(payload, '"')
}

// insertHugeRow inserts the row and a small one behind it. The table's own check
// would refuse it: a table of somebody else need not have one.
func insertHugeRow(t *testing.T, conn *pgx.Conn, topic string, payload []byte) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "ALTER TABLE public.outbox DROP CONSTRAINT outbox_payload_size"); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{string(payload), `"behind"`} {
		_, err := conn.Exec(t.Context(), "INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload) VALUES ($1, 'huge', 'endurance.huge.v1', $2::text::jsonb)", topic, value)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func raise(t *testing.T, e *relaytest.Environment, name, value string) {
	t.Helper()
	answers, err := e.Kafka.Admin(t).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, e.Topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range answers {
		if answer.Err != nil {
			t.Fatalf("set %s of %s: %v", name, answer.Name, answer.Err)
		}
	}
	// A real broker answers before it has it.
	admin := e.Kafka.Admin(t)
	await(t, "the topic has its "+name, time.Minute, func() bool {
		configs, err := admin.DescribeTopicConfigs(t.Context(), e.Topic)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(configs, func(of kadm.ResourceConfig) bool {
			return slices.ContainsFunc(of.Configs, func(c kadm.Config) bool { return c.Key == name && c.MaybeValue() == value })
		})
	})
}

// consumeHuge reads the values of the first n records, read_committed.
func consumeHuge(t *testing.T, e *relaytest.Environment, n int) [][]byte {
	t.Helper()
	const most = 110 << 20
	client := e.Kafka.Client(t, kgo.ConsumeTopics(e.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(most), kgo.FetchMaxPartitionBytes(most), kgo.BrokerMaxReadBytes(2*most))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var values [][]byte
	for len(values) < n {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%d of %d records came: %v", len(values), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, r.Value) })
	}
	return values
}

// watchRSS follows the peak of a process that may end by itself. The returned
// function ends it and says what was seen last.
func watchRSS(t *testing.T, p *relaytest.Process) func() int64 {
	t.Helper()
	quit, peak := make(chan struct{}), make(chan int64, 1)
	go func() {
		var last int64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			if rss, err := readPeakRSS(p.PID()); err == nil {
				last = rss
			}
			select {
			case <-tick.C:
			case <-quit:
				peak <- last
				return
			}
		}
	}()
	var once sync.Once
	end := func() { once.Do(func() { close(quit) }) }
	t.Cleanup(end)
	return func() int64 { end(); return <-peak }
}
