package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

func TestObserverSeesCommittedTransactionsAndTheirBounds(t *testing.T) {
	kafka := cdctest.SharedKafka(t)
	topic, positionTopic := kafka.Topic(t, 1), kafka.Topic(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	observer := NewObserver(kafka.Client(t, ReaderOptions(topic, positionTopic)...), topic, positionTopic)
	done := make(chan error, 1)
	reading, stopReading := context.WithCancel(ctx)
	go func() { done <- observer.Run(reading) }()

	producer := kafka.Client(t, kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	transact(ctx, t, producer, topic, positionTopic, kgo.TryCommit, 1, 2)
	transact(ctx, t, producer, topic, positionTopic, kgo.TryAbort, 3)
	transact(ctx, t, producer, topic, positionTopic, kgo.TryCommit, 4)
	if err := observer.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	stopReading()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, record := range observer.Seen() {
		got = append(got, fmt.Sprintf("%s %s after %d markers", record.ID, record.Position, record.KafkaTransaction))
	}
	want := []string{"e1 0/1:1 after 0 markers", "e2 0/2:1 after 0 markers", "e4 0/4:1 after 2 markers"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	var recorded []cdc.LSN
	for _, position := range observer.Positions() {
		recorded = append(recorded, position.RecordedLSN)
	}
	if diff := cmp.Diff([]cdc.LSN{2, 4}, recorded); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
	if observer.Count() != 3 || !observer.Saw("e4") || observer.Saw("e3") {
		t.Errorf("count %d, saw e4 %v, saw e3 %v", observer.Count(), observer.Saw("e4"), observer.Saw("e3"))
	}
}

// TestMarkersCountForTheirProducer: with a ring, records of the next transaction
// lie before the marker of the one before.
func TestMarkersCountForTheirProducer(t *testing.T) {
	kafka := cdctest.SharedKafka(t)
	topic, positionTopic := kafka.Topic(t, 1), kafka.Topic(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ring := make([]*kgo.Client, 2)
	for i := range ring {
		ring[i] = kafka.Client(t, kgo.TransactionalID(fmt.Sprintf("%s.%d", topic, i)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := ring[i].BeginTransaction(); err != nil {
			t.Fatal(err)
		}
	}
	produce(ctx, t, ring[0], topic, positionTopic, 1)
	produce(ctx, t, ring[1], topic, positionTopic, 2)
	end(ctx, t, ring[0], kgo.TryCommit)
	produce(ctx, t, ring[1], topic, positionTopic, 3)
	end(ctx, t, ring[1], kgo.TryCommit)
	transact(ctx, t, ring[1], topic, positionTopic, kgo.TryCommit, 4)

	observer := NewObserver(kafka.Client(t, ReaderOptions(topic, positionTopic)...), topic, positionTopic)
	done := make(chan error, 1)
	reading, stopReading := context.WithCancel(ctx)
	go func() { done <- observer.Run(reading) }()
	if err := observer.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	stopReading()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	seen := observer.Seen()
	if len(seen) != 4 {
		t.Fatalf("seen: %v", seen)
	}
	var shared []bool
	for i := range seen[1:] {
		shared = append(shared, sameTransaction(&seen[i], &seen[i+1]))
	}
	if diff := cmp.Diff([]bool{false, true, false}, shared); diff != "" {
		t.Errorf("neighbours in the same Kafka transaction (-want +got):\n%s", diff)
	}
}

func transact(ctx context.Context, t *testing.T, producer *kgo.Client, topic, positionTopic string, try kgo.TransactionEndTry, numbers ...int) {
	t.Helper()
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(ctx, t, producer, topic, positionTopic, numbers...)
	end(ctx, t, producer, try)
}

func end(ctx context.Context, t *testing.T, producer *kgo.Client, try kgo.TransactionEndTry) {
	t.Helper()
	if err := producer.EndTransaction(ctx, try); err != nil {
		t.Fatal(err)
	}
}

func produce(ctx context.Context, t *testing.T, producer *kgo.Client, topic, positionTopic string, numbers ...int) {
	t.Helper()
	var records []*kgo.Record
	for _, n := range numbers {
		records = append(records, &kgo.Record{
			Topic: topic, Key: []byte("k"), Value: fmt.Appendf(nil, `{"key":"k","seq":%d,"tag":"must-appear"}`, n),
			Headers: []kgo.RecordHeader{
				{Key: idHeader, Value: fmt.Appendf(nil, "e%d", n)},
				{Key: positionHeader, Value: []byte(cdc.Position{Generation: 1, CommitLSN: cdc.LSN(n), Serial: 1}.Header())},
			},
		})
	}
	position := cdc.PositionRecord{Version: cdc.PositionRecordVersion, RecordedLSN: cdc.LSN(numbers[len(numbers)-1])}
	value, err := position.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	records = append(records,
		&kgo.Record{Topic: positionTopic, Key: []byte("relay/topics"), Value: []byte("[]")},
		&kgo.Record{Topic: positionTopic, Key: []byte("relay"), Value: value})
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
