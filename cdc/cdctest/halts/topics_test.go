package halts_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// marks are how far slot and topics are; a halt moves none of them.
type marks struct {
	Confirmed string // empty where there is no slot
	Ends      map[string]map[int32]int64
}

func (b *bed) marks(t *testing.T) marks {
	t.Helper()
	// The relay that ran last may have gone before the slot was free and before its
	// markers were written.
	b.awaitFree(t)
	b.Kafka.AwaitMarkers(t, b.Topic, b.PositionTopic)
	m := marks{
		Confirmed: query(t, b.db, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, b.Slot),
		Ends:      map[string]map[int32]int64{},
	}
	// What was written and aborted would count too: nothing may be tried either.
	ends, err := b.Kafka.Admin(t).ListEndOffsets(t.Context(), b.Topic, b.PositionTopic)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Err != nil {
			return // the topic is not there
		}
		if m.Ends[end.Topic] == nil {
			m.Ends[end.Topic] = map[int32]int64{}
		}
		m.Ends[end.Topic][end.Partition] = end.Offset
	})
	return m
}

// requireStill demands that nothing has moved, and that the slot is free.
func (b *bed) requireStill(t *testing.T, before marks) {
	t.Helper()
	if diff := cmp.Diff(before, b.marks(t)); diff != "" {
		t.Errorf("slot or topics moved (- before, + after):\n%s", diff)
	}
}

// readTopic returns what a read_committed consumer sees in a topic, by partition.
func (b *bed) readTopic(t *testing.T, topic string) map[int32][]*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.Kafka.AwaitDecided(t, topic)
	ends, err := b.Kafka.Admin(t).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	from := map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			from[end.Partition] = kgo.NewOffset().AtStart()
		}
	})
	records := map[int32][]*kgo.Record{}
	if len(from) == 0 {
		return records
	}
	client := b.Kafka.Client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	for len(from) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read topic %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records[r.Partition] = append(records[r.Partition], r)
			}
			if end, ok := ends.Lookup(topic, r.Partition); ok && r.Offset+1 >= end.Offset {
				delete(from, r.Partition)
			}
		})
	}
	client.CloseAllowingRebalance()
	return records
}

// requireExact demands that every row of the table was delivered once, and in
// each partition in the order of its commits. One writer made all rows, so the
// order of their numbers is that of their commits.
func (b *bed) requireExact(t *testing.T) {
	t.Helper()
	rows, err := b.db.Query(t.Context(), `SELECT id::text FROM public.outbox ORDER BY (payload::text::json->>'seq')::int`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	b.requireDelivered(t, ids)
}

// requireDelivered is requireExact for rows that are not in the table any more.
func (b *bed) requireDelivered(t *testing.T, ids []string) {
	t.Helper()
	order := map[string]int{}
	for i, id := range ids {
		order[id] = i
	}
	seen := map[string]int{}
	for partition, records := range b.readTopic(t, b.Topic) {
		last := -1
		for _, record := range records {
			id := header(record, "ce_id")
			at, ok := order[id]
			if !ok {
				t.Errorf("event %s in partition %d is not in the table", id, partition)
				continue
			}
			if seen[id]++; seen[id] > 1 {
				t.Errorf("event %s was delivered again, in partition %d", id, partition)
			}
			if at <= last {
				t.Errorf("event %s in partition %d came after one that was committed later", id, partition)
			}
			last = at
		}
	}
	for i, id := range ids {
		if seen[id] == 0 {
			t.Errorf("row %d of %d, event %s, was not delivered", i+1, len(ids), id)
		}
	}
	if len(ids) == 0 {
		t.Error("there was nothing to deliver")
	}
}

func header(record *kgo.Record, key string) string {
	i := slices.IndexFunc(record.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
	if i < 0 {
		return ""
	}
	return string(record.Headers[i].Value)
}

// newestRecord returns the position record.
func (b *bed) newestRecord(t *testing.T) *cdc.PositionRecord {
	t.Helper()
	var newest []byte
	for _, record := range b.readTopic(t, b.PositionTopic)[0] {
		if string(record.Key) == b.Relay {
			newest = record.Value
		}
	}
	record, err := cdc.UnmarshalPositionRecord(newest)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// rewriteRecord writes a changed position record by hand, as no person should.
func (b *bed) rewriteRecord(t *testing.T, change func(*cdc.PositionRecord)) {
	t.Helper()
	record := b.newestRecord(t)
	change(record)
	value, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	b.writePosition(t, value)
}

func (b *bed) writePosition(t *testing.T, value []byte) {
	t.Helper()
	record := &kgo.Record{Topic: b.PositionTopic, Key: []byte(b.Relay), Value: value}
	if err := b.Kafka.Client(t).ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// deleteTopic deletes a topic and returns when it is gone.
func (b *bed) deleteTopic(t *testing.T, topic string) {
	t.Helper()
	if _, err := b.Kafka.Admin(t).DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "topic "+topic+" is gone", func() bool {
		topics, err := b.Kafka.Admin(t).ListTopics(t.Context())
		return err == nil && !topics.Has(topic)
	})
}

// createTopic makes a topic by hand.
func (b *bed) createTopic(t *testing.T, topic string, partitions int32, configs map[string]*string) {
	t.Helper()
	admin := b.Kafka.Admin(t)
	// A real cluster may refuse the name for a moment after the deletion.
	eventually(t, "topic "+topic+" is made", func() bool {
		_, err := admin.CreateTopic(t.Context(), partitions, 1, configs, topic)
		return err == nil
	})
	eventually(t, "topic "+topic+" has leaders", func() bool {
		topics, err := b.Kafka.Admin(t).ListTopics(t.Context(), topic)
		return err == nil && topics[topic].Err == nil && len(topics[topic].Partitions) == int(partitions) &&
			!slices.ContainsFunc(topics[topic].Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return p.Leader < 0 })
	})
}
