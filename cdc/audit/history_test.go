package audit

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

const (
	testTopic      = cdc.Topic("payment-event")
	otherTopic     = cdc.Topic("refund-event")
	parkedTopic    = cdc.Topic("parked")
	testPartitions = 3
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// history is an outbox and the topics that a relay made of it, before a test
// breaks something. It implements Rows and Records.
type history struct {
	rows    []Row
	now     map[ID]bool // beside rows, what is in the table now
	records []Record    // in the order in which they were published
	starts  map[place]time.Time
	noTopic bool
}

var testRelation = &cdc.Relation{Schema: "public", Name: "outbox", Columns: []cdc.Column{
	{Name: "id", TypeOID: 2950}, {Name: "aggregatetype", TypeOID: 25}, {Name: "aggregateid", TypeOID: 25},
	{Name: "type", TypeOID: 25}, {Name: "payload", TypeOID: 3802}, {Name: "created_at", TypeOID: 1184},
}}

func testRouter(t testing.TB, format string) cdc.Router {
	t.Helper()
	cfg := routing.Config{Format: format, AllowedTopics: []string{string(testTopic), string(otherTopic), "outbox.event.payment"}}
	if format == "" || format == routing.FormatCloudEventsStructured {
		cfg.Source = "/test"
	}
	router, err := routing.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// testID is the id of the n-th row, made n seconds after the epoch.
func testID(n int) ID {
	id := IDAt(epoch.Add(time.Duration(n) * time.Second))
	id[6], id[8], id[15] = 0x70, 0x80, byte(n)
	return id
}

func testRow(n, xid int, key string) Row {
	id := testID(n)
	created := epoch.Add(time.Duration(n) * time.Second)
	return Row{CommandID: uint32(n), Row: cdc.Row{
		XID: cdc.XID(xid), CommitTime: epoch.Add(time.Duration(n/2*2+1)*time.Second + 100*time.Millisecond), Relation: testRelation, EventID: []byte(id.String()),
		Values: [][]byte{[]byte(id.String()), []byte("payment"), []byte(key), []byte("payment.completed"), fmt.Appendf(nil, `{"n": %d}`, n), created.AppendFormat(nil, "2006-01-02 15:04:05.999999+00")},
	}}
}

// newHistory has n rows with 4 keys, two rows of a transaction, all published.
func newHistory(t testing.TB, format string, n int) *history {
	t.Helper()
	h := &history{now: map[ID]bool{}, starts: map[place]time.Time{}}
	router := testRouter(t, format)
	for i := range n {
		h.rows = append(h.rows, testRow(i, 700+i/2, fmt.Sprint("key-", i/2%4)))
		h.publish(t, router, &h.rows[i], cdc.Position{Generation: 1, CommitLSN: cdc.LSN(1000 + 100*(i/2)), Serial: uint32(1 + i%2)})
	}
	return h
}

func (h *history) publish(t testing.TB, router cdc.Router, row *Row, at cdc.Position) {
	t.Helper()
	published := row.Row
	published.Position = at
	record, err := router.Route(&published)
	if err != nil {
		t.Fatal(err)
	}
	record = record.Clone()
	h.records = append(h.records, Record{
		Topic: record.Topic, Partition: cdc.PartitionFor(record.Placement, testPartitions), Timestamp: record.Timestamp,
		Key: record.Key, Value: record.Value, Headers: record.Headers,
	})
}

func (h *history) Scan(_ context.Context, in Range, each func(*Row) error) error {
	for i := range h.rows {
		if id, _ := ParseID(h.rows[i].EventID); !in.Contains(id) {
			continue
		}
		if err := each(&h.rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) Exist(_ context.Context, ids []ID) (map[ID]bool, error) {
	exist := map[ID]bool{}
	for _, id := range ids {
		exist[id] = h.now[id]
	}
	return exist, nil
}

func (h *history) Partitions(context.Context, cdc.Topic) (int32, error) {
	if h.noTopic {
		return 0, nil
	}
	return testPartitions, nil
}

func (h *history) Read(_ context.Context, topics []cdc.Topic, _ time.Time, each func(*Record) error) (extents []Extent, err error) {
	next := map[place]int64{}
	for i := range h.records {
		record := h.records[i]
		if !slices.Contains(topics, record.Topic) {
			continue
		}
		at := place{record.Topic, record.Partition}
		record.Offset = next[at]
		next[at]++
		if err := each(&record); err != nil {
			return nil, err
		}
	}
	for _, topic := range topics {
		for p := range int32(testPartitions) {
			at := place{topic, p}
			extents = append(extents, Extent{Topic: topic, Partition: p, End: next[at], TruncatedBefore: h.starts[at]})
		}
	}
	return extents, nil
}

func (h *history) config(t testing.TB, format string) Config {
	t.Helper()
	header := "ce_id"
	if format == routing.FormatRaw || format == routing.FormatDebezium {
		header = "id"
	}
	return Config{
		Rows: h, Records: h, Router: testRouter(t, format), IDHeader: header, ParkedTopic: parkedTopic,
		Published: func(context.Context) (bool, error) { return true, nil }, TempDir: t.TempDir(),
	}
}

func (h *history) audit(t testing.TB, change func(*Config)) *Report {
	t.Helper()
	cfg := h.config(t, "")
	if change != nil {
		change(&cfg)
	}
	report, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}
