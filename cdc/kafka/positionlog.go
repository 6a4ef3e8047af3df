package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// positionPartition is the only partition that the position topic may have.
	positionPartition = 0
	// firstReadOffsets is how far before the end the first backward step starts;
	// each further step is readGrowth times as long.
	firstReadOffsets = 256
	readGrowth       = 8
	fetchBytes       = 8 << 20
	fetchWait        = 500 * time.Millisecond
	// emptyFetches in a row below the end mean that there is nothing to read.
	emptyFetches = 4
	retryPause   = 100 * time.Millisecond
)

// pinsKey is the key of the topic pins of a relay.
func pinsKey(relay string) string { return relay + "/topics" }

// positionLog reads the position topic with fetch requests of its own. A
// consumer would hide how far it has read through markers, aborted records and
// gaps; but that the read is complete is what has to be proved.
//
// The zero value with its fields set is usable; it belongs to one goroutine.
type positionLog struct {
	cl    *kgo.Client
	topic string
	relay string

	id     [16]byte // topic id, learnt with the leader
	leader int32
	known  bool // whether id and leader are
}

// bounds are offsets of the position topic's partition.
type bounds struct {
	start int64 // log start offset
	high  int64 // high watermark
	// stable is the last stable offset, asked for after high: every transaction
	// that began below high is decided if stable >= high.
	stable int64
}

// entry is a committed record of the position topic; offset -1 when none was found.
type entry struct {
	offset int64
	value  []byte // nil for a tombstone, which counts as the newest
}

// entries are the newest of the relay's two keys.
type entries struct {
	record entry
	pins   entry
	// next is the offset behind the last batch that was read from the end part.
	next int64
}

// bounds asks the leader. Unlike the watermarks in a fetch response, those of
// ListOffsets are never behind after a leader change (KIP-207: the new leader
// answers OFFSET_NOT_AVAILABLE until it knows).
func (l *positionLog) bounds(ctx context.Context) (bounds, error) {
	admin := kadm.NewClient(l.cl)
	var b bounds
	for _, ask := range []struct {
		name string
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		into *int64
	}{
		{"log start", admin.ListStartOffsets, &b.start},
		{"high watermark", admin.ListEndOffsets, &b.high},
		{"last stable offset", admin.ListCommittedOffsets, &b.stable},
	} {
		listed, err := ask.list(ctx, l.topic)
		if err != nil {
			return b, fmt.Errorf("ask for the %s of position topic %s: %w", ask.name, l.topic, err)
		}
		offset, ok := listed.Lookup(l.topic, positionPartition)
		if !ok {
			return b, fmt.Errorf("ask for the %s of position topic %s: no answer for partition %d", ask.name, l.topic, positionPartition)
		}
		if offset.Err != nil {
			return b, fmt.Errorf("ask for the %s of position topic %s: %w", ask.name, l.topic, offset.Err)
		}
		*ask.into = offset.Offset
	}
	return b, nil
}

// settledBounds waits until everything that stood below the high watermark at
// the call is decided. The answer to EndTxn comes before its marker is written;
// without the wait, who reads right after a commit would find the record before.
// A transaction that stays open is waited for only so long, and stable < high
// then; high remains what it was at the call.
func (l *positionLog) settledBounds(ctx context.Context) (bounds, error) {
	at, err := l.bounds(ctx)
	if err != nil {
		return at, err
	}
	high, deadline := at.high, time.Now().Add(markerWait)
	for at.stable < high && time.Now().Before(deadline) {
		if err := pause(ctx, markerPause); err != nil {
			return at, err
		}
		if at, err = l.bounds(ctx); err != nil {
			return at, err
		}
		at.high = high
	}
	return at, nil
}

// newest reads backwards in growing steps from end until both keys were found,
// or only the record if pins are not wanted, or the log start was reached.
func (l *positionLog) newest(ctx context.Context, start, end int64, withPins bool) (entries, error) {
	found := entries{record: entry{offset: -1}, pins: entry{offset: -1}, next: end}
	upTo := end
	for step := int64(firstReadOffsets); upTo > start; step *= readGrowth {
		from := max(start, end-step)
		next, err := l.read(ctx, from, upTo, &found)
		if err != nil {
			return found, err
		}
		if upTo == end {
			found.next = next // judged by the caller
		} else if next < upTo {
			// A gap ends at a batch, and that would have been returned.
			return found, fmt.Errorf("read position topic %s: the broker served nothing from offset %d to %d", l.topic, next, upTo)
		}
		if found.record.offset >= 0 && (found.pins.offset >= 0 || !withPins) {
			break
		}
		upTo = from
	}
	return found, nil
}

// read notes the newest entries in [from, upTo) and returns the offset behind
// the last batch that it saw: at least upTo if the read is complete.
func (l *positionLog) read(ctx context.Context, from, upTo int64, found *entries) (int64, error) {
	next, empty := from, 0
	for next < upTo {
		after, err := l.fetch(ctx, next, upTo, found)
		switch {
		case err == nil && after > next:
			next, empty = after, 0
			continue
		case err == nil:
			if empty++; empty == emptyFetches {
				return next, nil
			}
		case !isTransient(err):
			return next, fmt.Errorf("read position topic %s at offset %d: %w", l.topic, next, err)
		default:
			l.known = false
		}
		if err := pause(ctx, retryPause); err != nil {
			return next, fmt.Errorf("read position topic %s at offset %d: %w", l.topic, next, err)
		}
	}
	return next, nil
}

// fetch reads once from offset next and returns where to go on.
func (l *positionLog) fetch(ctx context.Context, next, upTo int64, found *entries) (int64, error) {
	if err := l.learnLeader(ctx); err != nil {
		return next, err
	}
	resp, err := l.cl.Broker(int(l.leader)).Request(ctx, l.fetchRequest(next))
	if err != nil {
		return next, err
	}
	fetched, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		return next, fmt.Errorf("fetch was answered by %T", resp)
	}
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return next, err
	}
	for i := range fetched.Topics {
		for j := range fetched.Topics[i].Partitions {
			partition := &fetched.Topics[i].Partitions[j]
			if partition.Partition != positionPartition {
				continue
			}
			return l.take(partition, next, upTo, found)
		}
	}
	return next, errors.New("fetch was answered without the partition")
}

func (l *positionLog) fetchRequest(offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(fetchWait.Milliseconds())
	req.MinBytes = 1
	req.MaxBytes = fetchBytes
	req.IsolationLevel = 1 // read committed
	req.SessionEpoch = -1  // no session
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition = positionPartition
	partition.FetchOffset = offset
	partition.PartitionMaxBytes = fetchBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = l.topic
	topic.TopicID = l.id
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	return req
}

// take decodes one partition's answer. Aborted records are dropped by the list
// of aborted transactions in it; control records only move the offset.
func (l *positionLog) take(partition *kmsg.FetchResponseTopicPartition, next, upTo int64, found *entries) (int64, error) {
	fetched, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset:         next,
		IsolationLevel: kgo.ReadCommitted(),
		Topic:          l.topic,
		Partition:      positionPartition,
	}, partition, kgo.DefaultDecompressor(), nil)
	if fetched.Err != nil {
		return next, fetched.Err
	}
	for _, record := range fetched.Records {
		if record.Offset >= upTo {
			break
		}
		var at *entry
		switch string(record.Key) {
		case l.relay:
			at = &found.record
		case pinsKey(l.relay):
			at = &found.pins
		default:
			continue
		}
		if record.Offset > at.offset {
			*at = entry{offset: record.Offset, value: record.Value}
		}
	}
	return after, nil
}

// learnLeader asks where the partition is, unless that is known.
func (l *positionLog) learnLeader(ctx context.Context) error {
	if l.known {
		return nil
	}
	metadata, err := kadm.NewClient(l.cl).Metadata(ctx, l.topic)
	if err != nil {
		return err
	}
	detail := metadata.Topics[l.topic]
	if detail.Err != nil {
		return detail.Err
	}
	partition, ok := detail.Partitions[positionPartition]
	if !ok {
		return kerr.UnknownTopicOrPartition
	}
	if partition.Err != nil {
		return partition.Err
	}
	l.id, l.leader, l.known = detail.ID, partition.Leader, true
	return nil
}

// isTransient says whether asking again, with fresh metadata, may help.
func isTransient(err error) bool {
	if _, ok := errors.AsType[*kerr.Error](err); ok {
		return kerr.IsRetriable(err)
	}
	return kgo.IsRetryableBrokerErr(err)
}

// pause waits, or returns ctx's error when that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
