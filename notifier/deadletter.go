package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The headers that a dead letter has beside those of its record.
const (
	deadPrefix       = "dlq-"
	deadReason       = "dlq-reason"
	deadError        = "dlq-error"
	deadAttempts     = "dlq-attempts"
	deadTopic        = "dlq-original-topic"
	deadPartition    = "dlq-original-partition"
	deadOffset       = "dlq-original-offset"
	deadTimestamp    = "dlq-original-timestamp"
	deadTime         = "dlq-time"
	deadConsumer     = "dlq-consumer"
	deadValueOmitted = "dlq-value-omitted" // the broker would not take it with its value
)

const (
	buryTimeout = 10 * time.Second
	// maxErrorBytes bounds the error in a header: it may quote the payload.
	maxErrorBytes = 1 << 10
	// readIdleTimeout is how long reading dead letters waits for records that
	// should be there.
	readIdleTimeout = 15 * time.Second
)

// DeadLetter is a record that could not become a message. The JSON form is the
// output of `dlq list -o json`, a contract.
type DeadLetter struct {
	EventID    string    `json:"event_id"`
	EventType  string    `json:"event_type"`
	Reason     string    `json:"reason"`
	Error      string    `json:"error"`
	State      string    `json:"state"` // of the inbox now: dead; sent after a redrive; absent when the inbox does not know it
	Attempts   int       `json:"attempts"`
	Topic      string    `json:"topic"`
	Partition  int32     `json:"partition"`
	Offset     int64     `json:"offset"`
	Timestamp  time.Time `json:"timestamp"` // the original record's
	BuriedAt   time.Time `json:"buried_at"`
	Consumer   string    `json:"consumer"`
	DeadOffset string    `json:"dead_letter_offset"` // partition/offset in the dead letter topic

	// Record is the original one: key, value and headers as they were.
	Record *kgo.Record `json:"-"`

	id uuid.UUID
}

// deadRecord makes the record of the dead letter topic: same key, value and
// headers, and why it is here.
func deadRecord(topic, consumer string, it *item, now time.Time) *kgo.Record {
	r := it.record
	reason := it.poison.err.Error()
	if len(reason) > maxErrorBytes {
		reason = reason[:maxErrorBytes]
		for !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	headers := slices.Clone(r.Headers)
	for _, h := range [][2]string{
		{deadReason, it.poison.reason},
		{deadError, reason},
		{deadAttempts, strconv.Itoa(it.claim.attempts)},
		{deadTopic, r.Topic},
		{deadPartition, strconv.Itoa(int(r.Partition))},
		{deadOffset, strconv.FormatInt(r.Offset, 10)},
		{deadTimestamp, r.Timestamp.UTC().Format(time.RFC3339Nano)},
		{deadTime, now.UTC().Format(time.RFC3339Nano)},
		{deadConsumer, consumer},
	} {
		headers = append(headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Headers: headers}
}

// bury writes an item to the dead letter topic and returns when it is safe.
func (c KafkaConfig) bury(ctx context.Context, client *kgo.Client, it *item) error {
	ctx, cancel := context.WithTimeout(ctx, buryTimeout)
	defer cancel()
	record := deadRecord(c.DeadLetterTopic, c.Group, it, time.Now())
	err := client.ProduceSync(ctx, record).FirstErr()
	if errors.Is(err, kerr.MessageTooLarge) {
		// The record fitted without our headers. Its place is named; without the
		// value it still says what happened.
		again := deadRecord(c.DeadLetterTopic, c.Group, it, time.Now())
		again.Value = nil
		again.Headers = append(again.Headers, kgo.RecordHeader{Key: deadValueOmitted, Value: []byte("true")})
		err = client.ProduceSync(ctx, again).FirstErr()
	}
	if err != nil {
		return fmt.Errorf("write event %s to %s: %w", it.entry.idText, c.DeadLetterTopic, err)
	}
	return nil
}

// ensureDeadLetterTopic makes the topic, or says that somebody has to.
func (c KafkaConfig) ensureDeadLetterTopic(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, retryTimeout)
	defer cancel()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, c.DeadLetterTopic)
	if err != nil {
		return fmt.Errorf("look for topic %s: %w", c.DeadLetterTopic, err)
	}
	detail := topics[c.DeadLetterTopic]
	if detail.Err == nil && len(detail.Partitions) > 0 {
		return nil
	}
	if detail.Err != nil && !errors.Is(detail.Err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("look for topic %s: %w", c.DeadLetterTopic, detail.Err)
	}
	if !c.CreateDeadLetterTopic {
		return &Problem{
			What: fmt.Sprintf("the dead letter topic %q does not exist", c.DeadLetterTopic),
			Why:  "an event that can never be a message would hold up all others",
			Fix:  "create it, or set kafka.create_topics",
		}
	}
	if _, err := admin.CreateTopic(ctx, 1, c.Replication, nil, c.DeadLetterTopic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", c.DeadLetterTopic, err)
	}
	return nil
}

// parseDeadLetter undoes deadRecord.
func parseDeadLetter(r *kgo.Record) DeadLetter {
	original := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	letter := DeadLetter{DeadOffset: fmt.Sprintf("%d/%d", r.Partition, r.Offset), Record: original}
	for _, h := range r.Headers {
		value := string(h.Value)
		switch h.Key {
		case deadReason:
			letter.Reason = value
		case deadError:
			letter.Error = value
		case deadAttempts:
			letter.Attempts, _ = strconv.Atoi(value) // 0 where the header is not ours
		case deadTopic:
			letter.Topic = value
		case deadPartition:
			partition, _ := strconv.ParseInt(value, 10, 32)
			letter.Partition = int32(partition)
		case deadOffset:
			letter.Offset, _ = strconv.ParseInt(value, 10, 64)
		case deadTimestamp:
			letter.Timestamp, _ = time.Parse(time.RFC3339Nano, value)
		case deadTime:
			letter.BuriedAt, _ = time.Parse(time.RFC3339Nano, value)
		case deadConsumer:
			letter.Consumer = value
		default:
			if !strings.HasPrefix(h.Key, deadPrefix) {
				original.Headers = append(original.Headers, h)
			}
		}
	}
	original.Topic, original.Partition, original.Offset = letter.Topic, letter.Partition, letter.Offset
	if !letter.Timestamp.IsZero() {
		original.Timestamp = letter.Timestamp
	}
	e, _ := readEntry(original) // an unreadable entry has its id and type too
	letter.id, letter.EventID, letter.EventType = e.id, e.idText, e.eventType
	return letter
}

// readDeadLetters reads the topic up to its present end, each event once: a
// crash between the letter and its note in the inbox writes it twice.
func (c KafkaConfig) readDeadLetters(ctx context.Context, log *slog.Logger) ([]DeadLetter, error) {
	client, err := c.newClient(log)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, c.DeadLetterTopic)
	if err == nil {
		err = starts.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, nil // nothing was ever buried
	}
	if err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", c.DeadLetterTopic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, c.DeadLetterTopic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", c.DeadLetterTopic, err)
	}
	left := map[int32]int64{} // partition -> end
	from := map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			left[end.Partition], from[end.Partition] = end.Offset, kgo.NewOffset().At(start.Offset)
		}
	})
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{c.DeadLetterTopic: from})
	return collectDeadLetters(ctx, client, left)
}

func collectDeadLetters(ctx context.Context, client *kgo.Client, left map[int32]int64) ([]DeadLetter, error) {
	var letters []DeadLetter
	known := map[uuid.UUID]bool{}
	for len(left) > 0 {
		pollCtx, cancel := context.WithTimeout(ctx, readIdleTimeout)
		fetches := client.PollFetches(pollCtx)
		cancel()
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
			if letter := parseDeadLetter(r); !known[letter.id] {
				known[letter.id] = true
				letters = append(letters, letter)
			}
		})
	}
	slices.SortStableFunc(letters, func(a, b DeadLetter) int { return a.BuriedAt.Compare(b.BuriedAt) })
	return letters, nil
}
