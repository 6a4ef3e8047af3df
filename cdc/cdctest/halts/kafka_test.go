package halts_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// kafkaHalts: Kafka is not what the relay left.
func kafkaHalts() []halt {
	var original *cdctest.Kafka
	var foreign *kgo.Client
	return []halt{
		{
			name: "another cluster with a copied position topic", reason: cdc.HaltOtherKafka, want: []string{"the cluster has id"},
			spoil: func(t *testing.T, b *bed) {
				original = b.Kafka
				b.copyToOtherKafka(t)
			},
			mend: func(t *testing.T, b *bed) {
				b.Kafka = original
				b.configure(t)
			},
		},
		{
			name: "another cluster to which all topics were copied", reason: cdc.HaltOtherKafka, want: []string{"the cluster has id"},
			spoil: func(t *testing.T, b *bed) {
				records := b.readTopic(t, b.Topic)
				b.copyToOtherKafka(t)
				b.copyTopic(t, records)
			},
			mend: func(t *testing.T, b *bed) { b.follow(t, "adopt --new-kafka") },
		},
		{
			name: "another cluster whose position is older than its events", reason: cdc.HaltOtherKafka, want: []string{"the cluster has id"},
			spoil: func(t *testing.T, b *bed) {
				older := b.newestRecord(t)
				b.once(t)
				records := b.readTopic(t, b.Topic)
				b.copyToOtherKafka(t)
				b.copyTopic(t, records)
				b.rewriteRecord(t, func(r *cdc.PositionRecord) { *r = *older })
				b.write(t, 1)
			},
			out: func(t *testing.T, b *bed) {
				b.command(t, 5, "adopt", "--new-kafka", "--confirm")
				b.resync(t, 0)
			},
		},
		{
			name: "topic made again", reason: cdc.HaltTopicRecreated, want: []string{"was deleted and made again"},
			spoil: func(t *testing.T, b *bed) { b.remakeTopic(t) }, out: topicAdopted,
		},
		{
			name: "topic made again while running", reason: cdc.HaltTopicRecreated, running: true, want: []string{"was deleted and made again"},
			spoil: func(t *testing.T, b *bed) {
				b.remakeTopic(t)
				b.write(t, 2)
			},
			out: topicAdopted,
		},
		{
			name: "foreign transaction on the position topic", reason: cdc.HaltHangingTransaction, slow: true,
			want: []string{"producer id", "kafka-transactions.sh"},
			spoil: func(t *testing.T, b *bed) {
				b.replace(t, "  replication: 1\n", "  replication: 1\n  transaction_timeout: 1s\n")
				foreign = b.foreignTransaction(t)
			},
			mend: func(t *testing.T, _ *bed) {
				if err := foreign.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
}

// copyToOtherKafka moves the relay to a cluster that has the same topics, and
// what the position topic says.
func (b *bed) copyToOtherKafka(t *testing.T) {
	t.Helper()
	records := b.readTopic(t, b.PositionTopic)[0]
	b.Kafka = cdctest.StartKafka(t)
	compact := "compact"
	b.createTopic(t, b.Topic, b.Partitions, nil)
	b.createTopic(t, b.PositionTopic, 1, map[string]*string{"cleanup.policy": &compact})
	client := b.Kafka.Client(t)
	for _, record := range records {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: b.PositionTopic, Key: record.Key, Value: record.Value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	b.configure(t)
}

func (b *bed) remakeTopic(t *testing.T) {
	t.Helper()
	b.deleteTopic(t, b.Topic)
	b.createTopic(t, b.Topic, b.Partitions, nil)
}

// foreignTransaction writes to the position topic and forgets to end it.
func (b *bed) foreignTransaction(t *testing.T) *kgo.Client {
	t.Helper()
	client := b.Kafka.Client(t, kgo.TransactionalID(fmt.Sprintf("foreign-%s", b.Relay)), kgo.TransactionTimeout(10*time.Minute))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: b.PositionTopic, Key: []byte("foreign"), Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return client
}

// topicAdopted takes the new topic, and writes to it what the old one had.
func topicAdopted(t *testing.T, b *bed) {
	t.Helper()
	b.follow(t, "adopt --topic "+b.Topic)
	if again := b.command(t, 0, "adopt", "--topic", b.Topic, "--confirm"); again.Done {
		t.Errorf("the second adoption did something: %+v", again)
	}
	b.repaired(t)
	b.requireOnce(t, nil)
}
