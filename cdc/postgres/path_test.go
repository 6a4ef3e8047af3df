package postgres

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

// path is all that happens to a row between the socket and the publisher:
// decoded, numbered, routed, and gathered into batches, which are taken at once.
type path struct {
	decoder *decoder
	message cdc.Message
	relay   *cdc.Relay
	now     time.Time
	rows    int // in batches taken
	batches int
	wal     cdc.LSN
	frames  [3][]byte // BEGIN, INSERT, COMMIT
}

func newPath(t testing.TB) *path {
	t.Helper()
	router, err := routing.New(routing.Config{Source: "/payments", Topic: "payment-event", AllowedTopics: []string{"payment-event"}})
	if err != nil {
		t.Fatal(err)
	}
	p := &path{
		decoder: newDecoder("public.outbox", 0, "id"), now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), wal: 0x1000,
	}
	p.relay = cdc.NewRelay(cdc.RelayConfig{
		Mode: cdc.ExactlyOnce, Router: router, Limits: cdc.BatchLimits{MaxRows: 1000, MaxBytes: 1 << 20, MaxPartitions: 100},
		Identity: cdc.Identity{Slot: "s", TransactionalIDs: cdc.TransactionalIDs{Prefix: "r", Ring: 1}},
	}, p.now)
	p.take(p.relay.Step(cdc.Input{}, p.now))
	if !p.relay.Reading() {
		t.Fatal("the relay does not stream")
	}
	p.frames = outboxFrames()
	if _, err := p.decoder.decode(relationFrame(), &p.message); err != nil {
		t.Fatal(err)
	}
	return p
}

// take answers every action at once: everything is as it should be.
func (p *path) take(eff cdc.Effects) {
	identity := cdc.PublicationIdentity{Name: "p", OID: 1}
	table := &cdc.TableIdentity{Name: "public.outbox", OID: 5}
	lineage := cdc.Lineage{{Timeline: 1}}
	pin := cdc.TopicPin{Topic: "payment-event", ID: "t", Partitions: 12}
	answers := map[cdc.Action]cdc.InputKind{
		cdc.ActionInspect: cdc.InputInspected, cdc.ActionAdvise: cdc.InputAdvised, cdc.ActionAttach: cdc.InputAttached,
		cdc.ActionOpen: cdc.InputOpened, cdc.ActionFacts: cdc.InputFacts,
	}
	for eff.Action != cdc.ActionNone {
		in := cdc.Input{
			Kind:   answers[eff.Action],
			Source: cdc.SourceFacts{SystemID: "7", Timeline: 1, Lineage: lineage, WALEnd: 1 << 40, Slot: &cdc.SlotFacts{}, Table: table, Publication: &cdc.PublicationFacts{PublicationIdentity: identity}},
			Kafka: cdc.KafkaFacts{
				ClusterID: "k", Pins: []cdc.TopicPin{pin}, Topics: map[cdc.Topic]cdc.TopicFacts{pin.Topic: {TopicPin: pin, MaxMessageBytes: 1 << 20}},
				Record: &cdc.PositionRecord{State: cdc.RecordRunning, Mode: cdc.ExactlyOnce, Generation: 1, SystemID: "7", Lineage: lineage, Complete: true, Publication: identity, Table: *table, At: p.now},
			},
			StatusInterval: time.Hour,
		}
		eff = p.relay.Step(in, p.now)
	}
}

// transaction passes one database transaction of so many rows along.
func (p *path) transaction(t testing.TB, rows int) {
	commit := p.wal
	p.wal += cdc.LSN(100 * (rows + 1))
	binary.BigEndian.PutUint64(p.frames[0][1:], uint64(commit))
	binary.BigEndian.PutUint64(p.frames[2][2:], uint64(commit))
	binary.BigEndian.PutUint64(p.frames[2][10:], uint64(commit+50))
	p.receive(t, p.frames[0])
	for range rows {
		p.receive(t, p.frames[1])
	}
	p.receive(t, p.frames[2])
}

func (p *path) receive(t testing.TB, frame []byte) {
	if _, err := p.decoder.decode(frame, &p.message); err != nil {
		t.Fatal(err)
	}
	for in := (cdc.Input{Kind: cdc.InputMessage, Message: &p.message}); ; in = (cdc.Input{Kind: cdc.InputPublished}) {
		eff := p.relay.Step(in, p.now)
		switch {
		case eff.Action == cdc.ActionPublish:
			p.rows += len(eff.Batch.Records)
			p.batches++
		case eff.Action != cdc.ActionNone:
			t.Fatalf("action %d, %v", eff.Action, eff.Problem)
		default:
			return
		}
	}
}

// relationFrame describes the outbox table as our migrations make it.
func relationFrame() []byte {
	frame := binary.BigEndian.AppendUint32([]byte{'R'}, 5)
	frame = append(frame, "public\x00outbox\x00d"...)
	columns := []struct {
		name string
		oid  uint32
	}{{"id", 2950}, {"aggregatetype", 25}, {"aggregateid", 25}, {"type", 25}, {"payload", 3802}, {"headers", 3802}, {"created_at", 1184}}
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(columns)))
	for _, column := range columns {
		frame = append(append(append(frame, 0), column.name...), 0)
		frame = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(frame, column.oid), 0xffffffff)
	}
	return frame
}

// outboxFrames are BEGIN, INSERT with a payload of 272 bytes, and COMMIT.
func outboxFrames() [3][]byte {
	begin := binary.BigEndian.AppendUint32(append([]byte{'B'}, make([]byte, 16)...), 700)
	insert := append(binary.BigEndian.AppendUint32([]byte{'I'}, 5), 'N', 0, 7)
	payload := fmt.Sprintf(`{"amount": 15000, "note": "%0243d"}`, 7)
	for _, value := range []string{"01a20deb-e258-7ab0-b4a9-0931641660b2", "payment", "5c5cbbbe-1f0a-4a2c-8b3b-0c9a46a1ff01", "payment.completed.v1", payload, "{}", "2026-11-24 12:00:00.123456+00"} {
		insert = append(binary.BigEndian.AppendUint32(append(insert, 't'), uint32(len(value))), value...)
	}
	return [3][]byte{begin, insert, append([]byte{'C'}, make([]byte, 1+8+8+8)...)}
}

// BenchmarkPath is the cost of a row before Kafka; compare runs with benchstat.
func BenchmarkPath(b *testing.B) {
	for _, rows := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			p := newPath(b)
			b.ReportAllocs()
			for b.Loop() {
				p.transaction(b, rows)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(p.rows), "ns/row")
		})
	}
}

// TestPathAllocations guards the path against an allocation for each row. What
// is left are the chunks that rows share, and what a batch needs.
func TestPathAllocations(t *testing.T) {
	const transactions, rows = 20, 1000
	p := newPath(t)
	p.transaction(t, rows)
	p.rows, p.batches = 0, 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range transactions {
		p.transaction(t, rows)
	}
	runtime.ReadMemStats(&after)
	if p.rows != transactions*rows {
		t.Fatalf("%d rows came through", p.rows)
	}
	allocations := float64(after.Mallocs-before.Mallocs) / float64(p.rows)
	bytes := float64(after.TotalAlloc-before.TotalAlloc) / float64(p.rows)
	t.Logf("%.3f allocations and %.0f bytes a row, %d batches", allocations, bytes, p.batches)
	if allocations > 0.1 {
		t.Errorf("%.3f allocations a row, want at most 0.1", allocations)
	}
	if bytes > 2000 {
		t.Errorf("%.0f bytes a row, want at most 2000", bytes)
	}
}
