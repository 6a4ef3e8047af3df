package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// WritersConfig says how the load looks. Table, Connect and the counts are
// required.
type WritersConfig struct {
	Connect func(ctx context.Context) (*pgx.Conn, error)
	Table   pgx.Identifier
	// AggregateType of every row; it routes to the topic.
	AggregateType string
	Writers       int
	KeysPerWriter int
	// Rows ends the load after about so many committed rows; 0 writes until the
	// context ends.
	Rows int64
	// RowsPerSecond of all writers together; 0 is as fast as they can.
	RowsPerSecond float64
	// BigTransactionRows makes one transaction in 500 that large; 0 makes none.
	BigTransactionRows int
	// Prepared makes one transaction in 20 a prepared one (two-phase commit).
	Prepared bool
	// Seed of the shape of the load. Ids are not part of it.
	Seed uint64
	// Logger: nil discards.
	Logger *slog.Logger
}

// WriterCounts say what the writers did. They rise while Run runs.
type WriterCounts struct {
	Transactions atomic.Int64 // committed
	Rows         atomic.Int64 // committed
	RolledBack   atomic.Int64 // transactions, on purpose or by a lost connection
	Savepoints   atomic.Int64 // rolled back inside committed transactions
	Prepared     atomic.Int64 // committed by COMMIT PREPARED
	Unknown      atomic.Int64 // COMMITs whose answer was lost; the table told
}

// Writers produce load. Each owns a connection and its keys, and each knows the
// last committed number of each of its keys.
type Writers struct {
	cfg    WritersConfig
	Counts WriterCounts
}

// NewWriters returns writers that have not written yet.
func NewWriters(cfg WritersConfig) *Writers {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Writers{cfg: cfg}
}

// Run writes until ctx ends or the rows are written. It returns nil on either;
// the end of ctx is awaited at the end of a transaction, so that every outcome
// is known when it returns. Lost connections are no errors.
func (w *Writers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range w.cfg.Writers {
		group.Go(func() error { return w.newWriter(i).run(ctx) })
	}
	return group.Wait()
}

// writer is one connection; only touched by its goroutine.
type writer struct {
	*Writers
	index   int
	rng     *rand.Rand
	numbers []int64 // last committed number of each key
	conn    *pgx.Conn
}

func (w *Writers) newWriter(index int) *writer {
	return &writer{
		Writers: w, index: index,
		rng:     rand.New(rand.NewPCG(w.cfg.Seed, uint64(index))),
		numbers: make([]int64, w.cfg.KeysPerWriter),
	}
}

// settleTimeout bounds the search for the outcome of the last transaction.
const settleTimeout = 2 * time.Minute

func (w *writer) run(ctx context.Context) error {
	// The transaction under way when ctx ends is finished: an outcome that nobody
	// knows would be no outcome to check.
	finish := context.WithoutCancel(ctx)
	defer func() { w.disconnect(finish) }()
	for ctx.Err() == nil && (w.cfg.Rows == 0 || w.Counts.Rows.Load() < w.cfg.Rows) {
		if w.conn == nil && !w.reconnect(ctx) {
			return nil
		}
		plan := w.plan()
		bounded, cancel := context.WithTimeout(finish, settleTimeout)
		err := w.write(bounded, plan)
		cancel()
		if err != nil {
			return fmt.Errorf("writer %d: %w", w.index, err)
		}
		if !w.pace(ctx, plan.rows()) {
			return nil
		}
	}
	return nil
}

// pace waits as long as the rows' share of the rate; false when ctx ended.
func (w *writer) pace(ctx context.Context, rows int) bool {
	if w.cfg.RowsPerSecond <= 0 {
		return true
	}
	perWriter := w.cfg.RowsPerSecond / float64(w.cfg.Writers)
	return sleep(ctx, time.Duration(float64(rows)/perWriter*float64(time.Second)))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reconnect tries until it has a connection; false when ctx ended before.
func (w *writer) reconnect(ctx context.Context) bool {
	for {
		conn, err := w.cfg.Connect(ctx)
		if err == nil {
			w.conn = conn
			return true
		}
		w.cfg.Logger.Debug("writer cannot connect", "writer", w.index, "cause", err)
		if !sleep(ctx, 50*time.Millisecond) {
			return false
		}
	}
}

func (w *writer) disconnect(ctx context.Context) {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
	w.conn = nil
}

// row is one insert as planned.
type row struct {
	id      uuid.UUID
	key     int
	seq     int64
	tag     string
	payload []byte
}

// plan is one transaction as planned before its first statement.
type plan struct {
	before    []row // before the savepoint
	undone    []row // between the savepoint and its rollback; often none
	after     []row
	copyRows  bool
	rollback  bool
	prepare   bool          // ends by COMMIT PREPARED or ROLLBACK PREPARED
	hesitates time.Duration // before COMMIT, so that commit order is not id order
}

func (p *plan) rows() int { return len(p.before) + len(p.after) }

// first is a row that is there exactly if the transaction was committed.
func (p *plan) first() row {
	if len(p.before) > 0 {
		return p.before[0]
	}
	return p.after[0]
}

// plan draws the next transaction. Numbers are advanced in numbers only once
// the commit is known.
func (w *writer) plan() *plan {
	p := &plan{rollback: w.rng.IntN(10) == 0, copyRows: w.rng.IntN(20) == 0}
	n := 1 + w.rng.IntN(5)
	if w.cfg.BigTransactionRows > 0 && w.rng.IntN(500) == 0 {
		n, p.copyRows, p.rollback = w.cfg.BigTransactionRows, true, false
	}
	if w.rng.IntN(8) == 0 {
		p.hesitates = time.Duration(w.rng.IntN(20)) * time.Millisecond
	}
	p.prepare = w.cfg.Prepared && w.rng.IntN(20) == 0
	next := map[int]int64{}
	tag := tagCommitted
	if p.rollback {
		tag = tagRolledBack
	}
	cut := n
	if w.rng.IntN(5) == 0 {
		cut = w.rng.IntN(n + 1)
		for range 1 + w.rng.IntN(3) {
			key := w.rng.IntN(len(w.numbers))
			p.undone = append(p.undone, w.row(key, w.numbers[key]+next[key]+1, tagRolledBack))
		}
	}
	for i := range n {
		key := w.rng.IntN(len(w.numbers))
		next[key]++
		r := w.row(key, w.numbers[key]+next[key], tag)
		if i < cut {
			p.before = append(p.before, r)
		} else {
			p.after = append(p.after, r)
		}
	}
	return p
}

func (w *writer) keyName(key int) string { return fmt.Sprintf("w%d-k%d", w.index, key) }

func (w *writer) row(key int, seq int64, tag string) row {
	value, err := json.Marshal(payload{Key: w.keyName(key), Seq: seq, Writer: w.index, Tag: tag})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return row{id: uuid.Must(uuid.NewV7()), key: key, seq: seq, tag: tag, payload: value}
}

// write runs one transaction to a known outcome.
func (w *writer) write(ctx context.Context, p *plan) error {
	xid, err := w.insert(ctx, p)
	if err != nil {
		return w.lost(ctx, "insert", err)
	}
	sleep(ctx, p.hesitates)
	if p.prepare {
		return w.prepare(ctx, xid, p)
	}
	if p.rollback {
		if _, err := w.conn.Exec(ctx, "ROLLBACK"); err != nil {
			return w.lost(ctx, "rollback", err)
		}
		w.Counts.RolledBack.Add(1)
		return nil
	}
	tag, err := w.conn.Exec(ctx, "COMMIT")
	committed := err == nil && tag.String() == "COMMIT"
	if err != nil {
		w.Counts.Unknown.Add(1)
		w.disconnect(ctx)
		if committed, err = w.resolve(ctx, xid, p); err != nil {
			return err
		}
	}
	if !committed {
		w.Counts.RolledBack.Add(1)
		return nil
	}
	w.committed(p)
	return nil
}

func (w *writer) committed(p *plan) {
	for _, rows := range [][]row{p.before, p.after} {
		for _, r := range rows {
			w.numbers[r.key] = r.seq
		}
	}
	if len(p.undone) > 0 {
		w.Counts.Savepoints.Add(1)
	}
	w.Counts.Transactions.Add(1)
	w.Counts.Rows.Add(int64(p.rows()))
}

// diskFull is the SQLSTATE of a server without room.
const diskFull = "53100"

// lost handles an error before COMMIT: nothing was committed. Only a closed
// connection is part of the game, and a full disk; a server that refuses a
// statement is not.
func (w *writer) lost(ctx context.Context, step string, err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == diskFull {
		w.disconnect(ctx)
		w.Counts.RolledBack.Add(1)
		sleep(ctx, retryInterval)
		return nil
	}
	if !w.conn.IsClosed() {
		return fmt.Errorf("%s: %w", step, err)
	}
	w.conn = nil
	w.Counts.RolledBack.Add(1)
	return nil
}

// insert opens the transaction and sends all its rows; it returns the xid.
func (w *writer) insert(ctx context.Context, p *plan) (string, error) {
	if p.copyRows {
		return w.insertByCopy(ctx, p)
	}
	var batch pgx.Batch
	batch.Queue("BEGIN")
	w.queue(&batch, p.before)
	if len(p.undone) > 0 {
		batch.Queue("SAVEPOINT undone")
		w.queue(&batch, p.undone)
		batch.Queue("ROLLBACK TO SAVEPOINT undone")
	}
	w.queue(&batch, p.after)
	var xid string
	batch.Queue("SELECT pg_current_xact_id()::text").QueryRow(func(r pgx.Row) error { return r.Scan(&xid) })
	return xid, w.conn.SendBatch(ctx, &batch).Close()
}

func (w *writer) insertByCopy(ctx context.Context, p *plan) (string, error) {
	if _, err := w.conn.Exec(ctx, "BEGIN"); err != nil {
		return "", err
	}
	if err := w.copy(ctx, p.before); err != nil {
		return "", err
	}
	if len(p.undone) > 0 {
		if _, err := w.conn.Exec(ctx, "SAVEPOINT undone"); err != nil {
			return "", err
		}
		if err := w.copy(ctx, p.undone); err != nil {
			return "", err
		}
		if _, err := w.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT undone"); err != nil {
			return "", err
		}
	}
	if err := w.copy(ctx, p.after); err != nil {
		return "", err
	}
	var xid string
	return xid, w.conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&xid)
}

var insertColumns = []string{"id", "aggregatetype", "aggregateid", "type", "payload"}

func (w *writer) queue(batch *pgx.Batch, rows []row) {
	insert := "INSERT INTO " + w.cfg.Table.Sanitize() + " (id, aggregatetype, aggregateid, type, payload) VALUES ($1, $2, $3, $4, $5)"
	for _, r := range rows {
		batch.Queue(insert, r.id, w.cfg.AggregateType, w.keyName(r.key), "ledger.row.v1", json.RawMessage(r.payload))
	}
}

func (w *writer) copy(ctx context.Context, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := w.conn.CopyFrom(ctx, w.cfg.Table, insertColumns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		r := rows[i]
		return []any{r.id, w.cfg.AggregateType, w.keyName(r.key), "ledger.row.v1", json.RawMessage(r.payload)}, nil
	}))
	return err
}

var errOutcome = errors.New("the outcome of a COMMIT stayed unknown")

// resolve finds out whether a transaction whose COMMIT got no answer took
// place. Its backend may still be at it, and after a crash another transaction
// may have its xid: so first wait until none with that xid runs, then look for
// the rows.
func (w *writer) resolve(ctx context.Context, xid string, p *plan) (bool, error) {
	first := p.first()
	for w.conn != nil || w.reconnect(ctx) {
		var running, exists bool
		err := w.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid = $1::text::xid8::xid AND pid <> pg_backend_pid())", xid).Scan(&running)
		if err == nil && !running {
			err = w.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+w.cfg.Table.Sanitize()+" WHERE id = $1)", first.id).Scan(&exists)
			if err == nil {
				return exists, nil
			}
		}
		if err != nil {
			w.cfg.Logger.Debug("writer cannot look for its commit", "writer", w.index, "cause", err)
			w.disconnect(ctx)
		}
		if !sleep(ctx, 20*time.Millisecond) {
			break
		}
	}
	return false, fmt.Errorf("%w: transaction %s", errOutcome, xid)
}
