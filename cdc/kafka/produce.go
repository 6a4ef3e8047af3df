package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// batchLimit is the bound of record batches to a topic with this
// max.message.bytes; franz-go takes none below 512.
func batchLimit(maxMessageBytes int) int32 { return int32(max(maxMessageBytes, 512)) }

// producible is the record as franz-go wants it; its bytes are the given one's,
// its headers are appended to headers.
func producible(record *cdc.Record, headers []kgo.RecordHeader) (kgo.Record, []kgo.RecordHeader) {
	first := len(headers)
	for _, header := range record.Headers {
		headers = append(headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
	}
	return kgo.Record{
		Topic:     string(record.Topic),
		Partition: record.Partition,
		Key:       record.Key,
		Value:     record.Value,
		Headers:   headers[first:len(headers):len(headers)],
		Timestamp: record.Timestamp,
	}, headers
}

// produce sends the records in order and returns nil only if every one of them
// was acknowledged. The first of them, as many as rows says, are records of
// rows. step names the flush in errors.
func produce(ctx context.Context, cl *kgo.Client, step string, records []kgo.Record, rows int) error {
	promises := promises{want: len(records)}
	for i := range records {
		if i == rows {
			cdc.Failpoint("publish.position")
		}
		cl.Produce(ctx, &records[i], promises.note)
	}
	cdc.Failpoint("publish.produced")
	if err := cl.Flush(ctx); err != nil {
		return errors.Join(promises.err(), fmt.Errorf("%s: %w", step, err))
	}
	return promises.err()
}

// promises collects the outcome of every record of one transaction.
type promises struct {
	mu    sync.Mutex // guards the fields below; franz-go calls from its goroutines
	want  int
	got   int
	first error
}

// note is the promise of every record.
func (o *promises) note(record *kgo.Record, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got++
	if err != nil && o.first == nil {
		o.first = fmt.Errorf("produce to topic %s partition %d: %w", record.Topic, record.Partition, err)
	}
}

// err is nil only if every record was acknowledged.
func (o *promises) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == nil && o.got != o.want {
		return fmt.Errorf("produce: %d of %d records were answered for", o.got, o.want)
	}
	return o.first
}
