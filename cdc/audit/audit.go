package audit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Row is a row of the table, with what the table itself knows of its order. The
// position of the cdc.Row is zero; its CommitTime is when the transaction
// committed where the server keeps that, else zero. It is valid during the call
// that hands it over.
type Row struct {
	cdc.Row
	CommandID uint32 // cmin: which command of its transaction inserted the row
}

// Rows is the outbox as Run calls it, from one goroutine.
type Rows interface {
	// Scan hands over the rows of the range in one snapshot, in the order of their ids.
	Scan(ctx context.Context, in Range, each func(*Row) error) error
	// Exist says which of the ids are in the table now, outside of the snapshot.
	Exist(ctx context.Context, ids []ID) (map[ID]bool, error)
}

// Record is a committed record of a topic, valid during the call that hands it
// over.
type Record struct {
	Topic     cdc.Topic
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []cdc.Header
}

// Extent is what of a partition was read.
type Extent struct {
	Topic     cdc.Topic
	Partition int32
	Start     int64
	End       int64
	// TruncatedBefore is the timestamp of the first record that is left, where
	// retention has removed records that the read would have begun with; it is
	// the time of the reading where none is left.
	TruncatedBefore time.Time
}

// Records is the cluster as Run calls it, from one goroutine.
type Records interface {
	// Partitions is the number of partitions over which keys of the topic are
	// placed; 0 where the topic does not exist.
	Partitions(ctx context.Context, topic cdc.Topic) (int32, error)
	// Read hands over the committed records of the topics with a timestamp of
	// since or later (zero: all), and perhaps earlier ones, partition by partition
	// in the order of offsets, up to the ends at the time of the call. An error
	// means that not all of them were seen.
	Read(ctx context.Context, topics []cdc.Topic, since time.Time, each func(*Record) error) ([]Extent, error)
}

// Progress is how far Run is.
type Progress struct {
	Phase string // rows, waiting, records, comparing
	Done  int64  // rows or records
}

// Config is what is compared and how. Rows, Records, Router, IDHeader and
// Published have no default.
type Config struct {
	Rows    Rows
	Records Records
	Router  cdc.Router
	Range   Range
	// IDs, where not empty, are the only ids that are looked at: Rows hands over no
	// others, and records of others are passed over. They are sorted.
	IDs []ID
	// IDHeader is the header with the event id: ce_id, or id.
	IDHeader string
	// Source is the ce_source of the relay, where the format has one: records of
	// another, in topics that are shared, are no phantoms and keep no order with ours.
	Source string
	// Published waits until everything that was committed before the call is
	// decided in Kafka, and says whether that came.
	Published func(ctx context.Context) (bool, error)
	// ParkedTopic has a record for each parked row, its key the event id; may be empty.
	ParkedTopic cdc.Topic
	// Topics are read even if no row routes there.
	Topics []cdc.Topic
	// Since bounds the records by their timestamps, which no record of the range may
	// precede; zero reads the whole topics. A row whose id is no UUIDv7, and so tells
	// no time, has the whole topics read too.
	Since time.Time
	// IgnoreContent compares neither values nor headers nor keys.
	IgnoreContent bool
	// OrderTolerance is by how much commit timestamps have to differ to prove an
	// order; zero takes them at their word, which is exact where the writers of one
	// key wait for each other, by a lock on what the key names.
	OrderTolerance time.Duration
	// Missing is told each missing row, in the order of ids; may be nil.
	Missing func(id ID) error
	// Observe is told of progress every few thousand rows; may be nil.
	Observe func(Progress)
	// TempDir is where the sorted runs lie; default the system's.
	TempDir string
	// MemoryBytes bounds each of the sorts; default 8 MiB.
	MemoryBytes int
	// MaxExamples bounds the examples of each kind in the report; default 10.
	MaxExamples int
}

func (c *Config) setDefaults() {
	if c.Observe == nil {
		c.Observe = func(Progress) {}
	}
	if c.Missing == nil {
		c.Missing = func(ID) error { return nil }
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 8 << 20
	}
	if c.MaxExamples == 0 {
		c.MaxExamples = 10
	}
}

func (c *Config) validate() error {
	var problems []error
	if c.Rows == nil || c.Records == nil || c.Router == nil || c.Published == nil {
		problems = append(problems, errors.New("audit: Rows, Records, Router and Published are required"))
	}
	if c.IDHeader == "" {
		problems = append(problems, errors.New("audit: no IDHeader"))
	}
	if c.OrderTolerance < 0 || c.MemoryBytes < 0 {
		problems = append(problems, errors.New("audit: OrderTolerance and MemoryBytes may not be negative"))
	}
	return errors.Join(problems...)
}

// observeEvery is the number of rows or records between two reports of progress.
const observeEvery = 5000

// run is the state of one audit.
type run struct {
	cfg    Config
	report *Report
	seed   maphash.Seed

	topics  topicTable
	entries *sorter // of rows and records, by id
	order   *sorter // of rows that were found, by key and offset
	extents map[place]Extent
	lowest  ID // of the rows
	checked positionChecks
}

type place struct {
	topic     cdc.Topic
	partition int32
}

// Run audits. The report is complete only if the error is nil.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	r := &run{
		cfg: cfg, seed: maphash.MakeSeed(), report: newReport(&cfg),
		entries: newSorter(entryBytes, cfg.MemoryBytes, cfg.TempDir), order: newSorter(orderBytes, cfg.MemoryBytes, cfg.TempDir),
		extents: map[place]Extent{}, checked: positionChecks{},
	}
	defer r.entries.close()
	defer r.order.close()
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	r.report.finish(&r.topics, time.Since(began))
	return r.report, nil
}

func (r *run) run(ctx context.Context) error {
	if err := r.scanRows(ctx); err != nil {
		return fmt.Errorf("audit: read the rows: %w", err)
	}
	r.cfg.Observe(Progress{Phase: "waiting"})
	var err error
	// Asked after the snapshot and before the ends of the topics are read: that
	// order is what makes a row without a record a missing one.
	if r.report.Proved, err = r.cfg.Published(ctx); err != nil {
		return fmt.Errorf("audit: ask how far Kafka is: %w", err)
	}
	if err := r.readRecords(ctx); err != nil {
		return fmt.Errorf("audit: read the records: %w", err)
	}
	r.cfg.Observe(Progress{Phase: "comparing", Done: r.report.Rows})
	if err := r.join(ctx); err != nil {
		return fmt.Errorf("audit: compare: %w", err)
	}
	if err := r.checkOrder(); err != nil {
		return fmt.Errorf("audit: check the order: %w", err)
	}
	return nil
}

func (r *run) scanRows(ctx context.Context) error {
	for _, topic := range r.cfg.Topics {
		if _, err := r.topics.index(ctx, r.cfg.Records, topic); err != nil {
			return err
		}
	}
	var failed error
	err := r.cfg.Rows.Scan(ctx, r.cfg.Range, func(row *Row) error {
		if r.report.Rows++; r.report.Rows%observeEvery == 0 {
			r.cfg.Observe(Progress{Phase: "rows", Done: r.report.Rows})
		}
		e, err := r.rowEntry(ctx, row)
		if err != nil {
			failed = err
			return err
		}
		if r.report.Rows == 1 {
			r.lowest = e.id
		}
		return r.entries.add(e.encode())
	})
	if failed != nil {
		return failed
	}
	return err
}

// rowEntry routes the row as the relay does.
func (r *run) rowEntry(ctx context.Context, row *Row) (entry, error) {
	id, err := ParseID(row.EventID)
	if err != nil {
		return entry{}, &cdc.Problem{What: err.Error(), Why: "the audit joins rows and records by ids of 16 bytes", Fix: "compare tables with other ids by own queries"}
	}
	if id.Time().IsZero() {
		r.cfg.Since = time.Time{}
	}
	e := entry{id: id, kind: kindRow, xid: row.XID, command: row.CommandID}
	if !row.CommitTime.IsZero() {
		e.commit = row.CommitTime.UnixMicro()
		r.report.Order.CommitTimes = true
	}
	record, err := r.cfg.Router.Route(&row.Row)
	if problem, ok := errors.AsType[*cdc.Problem](err); ok && problem.Reason == cdc.HaltBadRow {
		e.flags |= flagUnroutable
		return e, nil
	}
	if err != nil {
		return entry{}, err
	}
	if e.topic, err = r.topics.index(ctx, r.cfg.Records, record.Topic); err != nil {
		return entry{}, err
	}
	if n := r.topics.list[e.topic].partitions; n > 0 {
		e.partition = cdc.PartitionFor(record.Placement, n)
	}
	r.topics.list[e.topic].rows++
	e.key = r.keyHash(record.Key)
	e.content = r.contentHash(record.Key, record.Value, record.Headers)
	return e, nil
}

func (r *run) readRecords(ctx context.Context) error {
	topics := r.topics.existing()
	if r.cfg.ParkedTopic != "" {
		n, err := r.cfg.Records.Partitions(ctx, r.cfg.ParkedTopic)
		if err != nil {
			return err
		}
		if n > 0 {
			topics = append(topics, r.cfg.ParkedTopic)
		}
	}
	if len(topics) == 0 {
		return nil
	}
	seen := int64(0)
	extents, err := r.cfg.Records.Read(ctx, topics, r.cfg.Since, func(record *Record) error {
		if seen++; seen%observeEvery == 0 {
			r.cfg.Observe(Progress{Phase: "records", Done: seen})
		}
		return r.addRecord(ctx, record)
	})
	for _, extent := range extents {
		r.extents[place{extent.Topic, extent.Partition}] = extent
	}
	return err
}

func (r *run) addRecord(ctx context.Context, record *Record) error {
	if record.Topic == r.cfg.ParkedTopic {
		if id, ok := idOf(record.Key); ok && r.wants(id) {
			e := entry{id: id, kind: kindParked}
			return r.entries.add(e.encode())
		}
		return nil
	}
	topic, err := r.topics.index(ctx, r.cfg.Records, record.Topic)
	if err != nil {
		return err
	}
	e := entry{kind: kindRecord, topic: topic, partition: record.Partition, offset: record.Offset, flags: r.flagsOf(record)}
	if e.flags == 0 {
		r.checkPosition(record)
	}
	text, _ := headerOf(record.Headers, r.cfg.IDHeader)
	id, ok := idOf(text)
	if !ok {
		r.report.found(&r.report.Foreign, KindForeign, Example{Topic: record.Topic, Partition: record.Partition, Offset: record.Offset, Text: "header " + r.cfg.IDHeader + " holds no UUID"})
		return nil
	}
	if !r.wants(id) {
		return nil
	}
	r.report.Records++
	r.topics.list[topic].records++
	e.id, e.key = id, r.keyHash(record.Key)
	e.content = r.contentHash(record.Key, record.Value, record.Headers)
	return r.entries.add(e.encode())
}

// flagsOf says what makes a record none of the relay's stream.
func (r *run) flagsOf(record *Record) (flags uint8) {
	for _, mark := range []string{HeaderBackfill, HeaderResync} {
		if _, ok := headerOf(record.Headers, mark); ok {
			flags |= flagBackfilled
		}
	}
	if source, ok := headerOf(record.Headers, headerSource); ok && r.cfg.Source != "" && string(source) != r.cfg.Source {
		flags |= flagOtherSource
	}
	return flags
}

// idOf reads an id of somebody who may not use UUIDs.
func idOf(text []byte) (ID, bool) {
	id, err := ParseID(text)
	return id, err == nil
}

// wants says whether an id is audited at all.
func (r *run) wants(id ID) bool {
	if len(r.cfg.IDs) > 0 {
		_, listed := slices.BinarySearchFunc(r.cfg.IDs, id, ID.Compare)
		return listed
	}
	return r.cfg.Range.Contains(id)
}
