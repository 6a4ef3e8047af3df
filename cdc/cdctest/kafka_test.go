package cdctest_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// transact produces the values in one transaction and ends it.
func transact(t *testing.T, client *kgo.Client, topic string, end kgo.TransactionEndTry, values ...string) {
	t.Helper()
	ctx := context.Background()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i, value := range values {
		record := &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte(value)}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			t.Fatalf("produce %s: %v", value, err)
		}
	}
	if err := client.EndTransaction(ctx, end); err != nil {
		t.Fatal(err)
	}
}

// consume returns the first n values that a read_committed consumer sees in
// partition 0 and 1, as a set.
func consume(t *testing.T, k *cdctest.Kafka, topic string, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := k.Client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	seen := make(map[string]int)
	for total := 0; total < n; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("saw %d records of %d: %v", total, n, seen)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			seen[string(r.Value)]++
			total++
		})
	}
	return seen
}

func transactional(t *testing.T, k *cdctest.Kafka, id string) *kgo.Client {
	t.Helper()
	return k.Client(t, kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// restartKeeps produces, restarts by stop and k.Start, produces again, and
// compares what a consumer sees.
func restartKeeps(t *testing.T, k *cdctest.Kafka, stop func(testing.TB)) {
	t.Helper()
	topic := k.Topic(t, 2)
	brokers := k.Brokers()
	first := transactional(t, k, "first")
	transact(t, first, topic, kgo.TryCommit, "a", "b")
	transact(t, first, topic, kgo.TryAbort, "never", "never either")
	transact(t, first, topic, kgo.TryCommit, "c")
	k.AwaitDecided(t, topic) // see KafkaServer.Stop

	stop(t)
	k.Start(t)

	if diff := cmp.Diff(brokers, k.Brokers()); diff != "" {
		t.Errorf("addresses after the restart (-before +after):\n%s", diff)
	}
	transact(t, transactional(t, k, "second"), topic, kgo.TryCommit, "d", "e")
	want := map[string]int{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}
	if diff := cmp.Diff(want, consume(t, k, topic, 5)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestKafkaKeepsTransactionsOverARestart(t *testing.T) {
	t.Run("kfake", func(t *testing.T) {
		k := cdctest.StartKafka(t)
		restartKeeps(t, k, k.Stop)
	})
	if os.Getenv(cdctest.BrokersVariable) == "" {
		return // this run has nothing but Go
	}
	for _, cfg := range []cdctest.ApacheKafkaConfig{
		{Version: cdctest.Kafka3, TransactionVersion: 1},
		{Version: cdctest.Kafka4, TransactionVersion: 1},
		{Version: cdctest.Kafka4, TransactionVersion: 2},
	} {
		t.Run(fmt.Sprintf("Apache Kafka %s, transaction version %d", cfg.Version, cfg.TransactionVersion), func(t *testing.T) {
			k := cdctest.StartApacheKafkaWith(t, cfg)
			restartKeeps(t, k, k.Stop)
			restartKeeps(t, k, k.Kill)
		})
	}
}

func TestKfakeCannotBeKilled(t *testing.T) {
	k := cdctest.StartKafka(t)
	if err := k.Server().Kill(); err == nil || !k.Server().Running() {
		t.Errorf("killed: %v, running: %v", err, k.Server().Running())
	}
}

func TestKafkaNeverCreatesTopicsByItself(t *testing.T) {
	k := cdctest.SharedKafka(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	name := k.TopicName(t)
	client := k.Client(t, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("x")}).FirstErr(); err == nil {
		t.Error("a record was produced to a topic that nobody created")
	}
}

func TestKfakeClustersHaveDifferentIDs(t *testing.T) {
	ids := make(map[string]bool)
	for range 2 {
		metadata, err := cdctest.StartKafka(t).Admin(t).BrokerMetadata(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		ids[metadata.Cluster] = true
	}
	if len(ids) != 2 {
		t.Errorf("cluster ids of two clusters = %v", ids)
	}
}

func TestSharedKafkaTopicsAreSeparate(t *testing.T) {
	k := cdctest.SharedKafka(t)
	names := make(map[string]bool)
	for i := range 3 {
		name := k.Topic(t, int32(i+1))
		names[name] = true
		metadata, err := k.Admin(t).ListTopics(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(metadata[name].Partitions); got != i+1 {
			t.Errorf("partitions of %s = %d, want %d", name, got, i+1)
		}
	}
	if len(names) != 3 {
		t.Errorf("three topics share names: %s", fmt.Sprint(names))
	}
}
