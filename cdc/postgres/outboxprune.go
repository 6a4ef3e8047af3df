package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

const (
	// pruneLockTimeout bounds the wait for a lock, and so how long others may
	// queue behind that wait.
	pruneLockTimeout = 300 * time.Millisecond
	// pruneHold bounds how long an old day is locked against inserts while the
	// slot is waited for.
	pruneHold = 400 * time.Millisecond
	// pruneSafe bounds the question whether it is safe, asked under the same lock.
	pruneSafe = 500 * time.Millisecond
	// pruneBlocks is how many blocks of a table one delete looks at.
	pruneBlocks = 16
	prunePoll   = 10 * time.Millisecond
)

// PruneConfig says what may go. Safe has no default.
type PruneConfig struct {
	Keep     time.Duration // rows younger than this stay; whole days where the table is partitioned
	MakeDays int           // partitions to have ahead, today's included; 0 makes none
	// Wait bounds how long each step waits for the slot to confirm, and tries to
	// get its locks; default 30 s.
	Wait time.Duration
	// Safe is asked right before anything is removed, while the slot has confirmed
	// it: an error keeps it. It says whether the slot's word counts, which it does
	// not during a resync.
	Safe func(ctx context.Context) error
	// CreatedAt is the column by which rows whose id is no UUIDv7 are judged; those
	// rows stay where the table has no such column.
	CreatedAt string
	DryRun    bool
}

// PruneReport is what was done, or would be. Its JSON is a contract.
type PruneReport struct {
	DryRun   bool       `json:"dry_run"`
	Cutoff   time.Time  `json:"cutoff"` // what is older may go
	MadeDays int        `json:"made_days"`
	Days     []PruneDay `json:"days"` // of partitions older than the cutoff
	// Table is the relation whose rows are deleted: the table itself, or its
	// DEFAULT partition; empty where there is none.
	Table         string  `json:"table,omitempty"`
	DeletedRows   int64   `json:"deleted_rows"`
	Kept          string  `json:"kept,omitempty"` // why no row of it was deleted, though some are old
	Deletes       int     `json:"deletes"`        // statements, each a transaction
	LongestDelete float64 `json:"longest_delete_seconds"`
	BytesBefore   int64   `json:"bytes_before"` // of the outbox with indexes and TOAST
	BytesAfter    int64   `json:"bytes_after"`
	// LongestLock is the longest time that a day was locked against inserts into
	// it; LongestExclusive the longest that inserts into the whole outbox had to
	// wait, the queue for that lock included.
	LongestLock      float64 `json:"longest_lock_seconds"`
	LongestExclusive float64 `json:"longest_exclusive_seconds"`
}

// AnyKept says whether something old had to stay.
func (r *PruneReport) AnyKept() bool {
	return r.Kept != "" || slices.ContainsFunc(r.Days, func(d PruneDay) bool { return d.Kept != "" })
}

// PruneDay is one old partition.
type PruneDay struct {
	Partition string   `json:"partition"`
	Until     audit.ID `json:"until"` // its bound
	Bytes     int64    `json:"bytes"`
	Dropped   bool     `json:"dropped"`
	Attempts  int      `json:"attempts"`
	Kept      string   `json:"kept,omitempty"` // why it was not dropped
}

func (l *look) tableColumns() []string {
	if l.Table == nil {
		return nil
	}
	return l.Table.Columns
}

// pruner is one run of Prune.
type pruner struct {
	cfg  *Config
	in   PruneConfig
	conn *connection
	// flusher is a second session, since the first waits inside a transaction.
	flusher *connection
	look    *look
	report  *PruneReport
	cutoff  audit.ID
}

// Prune removes what is older than Keep and confirmed. Age decides what may go;
// that it is in Kafka is proved by the slot alone: for a day, no row can still be
// on its way once its writers are locked out and the slot has confirmed the WAL
// behind them. The session needs the rights of the table's owner.
func (a *Admin) Prune(ctx context.Context, in PruneConfig) (*PruneReport, error) {
	if in.Keep <= 0 || in.Safe == nil {
		return nil, errors.New("prune: Keep has to be positive, and Safe set")
	}
	if in.Wait == 0 {
		in.Wait = 30 * time.Second
	}
	conn, l, err := a.look(ctx, connectOptions{})
	if err != nil {
		return nil, err
	}
	defer conn.close()
	flusher, err := a.cfg.connect(ctx, connectOptions{})
	if err != nil {
		return nil, err
	}
	defer flusher.close()
	now, err := conn.text(ctx, "read the server's clock", "SELECT pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8")
	if err != nil {
		return nil, err
	}
	ms, err := strconv.ParseInt(now, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the server's clock: %w", err)
	}
	if !slices.Contains(l.tableColumns(), in.CreatedAt) {
		in.CreatedAt = ""
	}
	cutoff := time.UnixMilli(ms).Add(-in.Keep).UTC()
	p := &pruner{cfg: &a.cfg, in: in, conn: conn, flusher: flusher, look: l, cutoff: audit.IDAt(cutoff), report: &PruneReport{DryRun: in.DryRun, Cutoff: cutoff, Days: []PruneDay{}}}
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	return p.report, p.run(ctx)
}

func (p *pruner) check(ctx context.Context) error {
	if p.look.InRecovery {
		return notPrimary(p.conn.host)
	}
	if problem := p.look.tableProblem(p.cfg); problem != nil {
		return problem
	}
	if p.look.Slot == nil || p.look.Slot.facts().Lost() {
		return &cdc.Problem{
			What: fmt.Sprintf("slot %q does not exist or is lost: nothing is pruned", p.cfg.Slot),
			Why:  "without it nothing proves that a row is in Kafka",
			Fix:  "cdc-relay status; mend the relay first",
		}
	}
	owns, err := p.conn.text(ctx, "read the owner of "+p.cfg.Table, fmt.Sprintf("SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = %d", p.look.Table.OID))
	if err != nil || owns == "t" {
		return err
	}
	return &cdc.Problem{
		Treatment: cdc.Setup,
		What:      fmt.Sprintf("role %q does not own table %s", p.look.Role.Name, p.cfg.Table),
		Why:       "only the owner may attach and drop partitions",
		Fix:       "name a role such as outbox_maintainer in postgres.admin_dsn_file",
	}
}

func (p *pruner) run(ctx context.Context) (err error) {
	if p.report.BytesBefore, err = p.size(ctx); err != nil {
		return err
	}
	if err := p.makeDays(ctx); err != nil {
		return err
	}
	target := p.cfg.Table
	if p.look.Table.partitioned() {
		if target, err = p.dropDays(ctx); err != nil {
			return err
		}
	} else {
		target = quoteTable(target)
	}
	if target != "" {
		p.report.Table = target
		if err := p.deleteRows(ctx, target); err != nil {
			return err
		}
	}
	p.report.BytesAfter, err = p.size(ctx)
	return err
}

// size is the outbox's with everything that belongs to it.
func (p *pruner) size(ctx context.Context) (int64, error) {
	text, err := p.conn.text(ctx, "measure "+p.cfg.Table, "SELECT coalesce(sum(pg_catalog.pg_total_relation_size(relid)), 0) FROM pg_catalog.pg_partition_tree("+p.regclass()+")")
	if err != nil {
		return 0, err
	}
	if bytes, err := strconv.ParseInt(text, 10, 64); err != nil || bytes > 0 {
		return bytes, err
	}
	// A table that is no partition and has none may not be in its own tree.
	text, err = p.conn.text(ctx, "measure "+p.cfg.Table, "SELECT pg_catalog.pg_total_relation_size("+p.regclass()+")")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

func (p *pruner) regclass() string {
	return quoteLiteral(quoteTable(p.cfg.Table)) + "::pg_catalog.regclass"
}

// makeDays calls the function that our migration brings, where there is one.
func (p *pruner) makeDays(ctx context.Context) error {
	if p.in.MakeDays == 0 || p.in.DryRun || !p.look.Table.partitioned() {
		return nil
	}
	schema, table, _ := splitTable(p.cfg.Table)
	function := quoteIdentifier(schema) + "." + quoteIdentifier(table+"_make_days")
	there, err := p.conn.text(ctx, "look for "+function, "SELECT pg_catalog.to_regprocedure("+quoteLiteral(function+"(integer)")+") IS NOT NULL")
	if err != nil || there != "t" {
		return err
	}
	made, err := p.conn.text(ctx, "make partitions ahead", fmt.Sprintf("SELECT %s(%d)", function, p.in.MakeDays))
	if err != nil {
		return err
	}
	p.report.MadeDays, err = strconv.Atoi(made)
	return err
}

// rangeBound is how the server prints the bounds of a partition by ranges of
// uuid. (PostgreSQL source, get_range_partbound_string.)
var rangeBound = regexp.MustCompile(`^FOR VALUES FROM \((?:'[0-9a-f-]{36}'|MINVALUE)\) TO \('([0-9a-f-]{36})'\)$`)

// dropDays drops the old partitions and returns the DEFAULT partition's name.
func (p *pruner) dropDays(ctx context.Context) (spare string, err error) {
	rows, err := p.conn.query(ctx, "list the partitions of "+p.cfg.Table, `SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_expr(c.relpartbound, c.oid), pg_catalog.pg_total_relation_size(c.oid)
		FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
		WHERE i.inhparent = `+p.regclass()+` AND c.relkind = 'r' ORDER BY 1`)
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		if string(row[1]) == "DEFAULT" {
			spare = string(row[0])
		}
		bound := rangeBound.FindSubmatch(row[1])
		if bound == nil {
			continue // not ours to judge
		}
		day := PruneDay{Partition: string(row[0])}
		if day.Until, err = audit.ParseID(bound[1]); err != nil || day.Until.Compare(p.cutoff) > 0 {
			continue
		}
		day.Bytes, _ = strconv.ParseInt(string(row[2]), 10, 64) // only shown
		if !p.in.DryRun {
			err = p.dropDay(ctx, &day)
		}
		p.report.Days = append(p.report.Days, day)
		if err != nil {
			return "", err
		}
	}
	return spare, nil
}

// dropDay tries until the day is gone or Wait has passed. Attempts come at random
// moments: a relay of a quiet outbox confirms in steps.
func (p *pruner) dropDay(ctx context.Context, day *PruneDay) error {
	for deadline := time.Now().Add(p.in.Wait); ; {
		day.Attempts++
		kept, err := p.tryDrop(ctx, day.Partition)
		if err != nil {
			return err
		}
		day.Dropped, day.Kept = kept == "", kept
		if day.Dropped || time.Now().After(deadline) {
			return nil
		}
		if err := wait(ctx, 50*time.Millisecond+rand.N(400*time.Millisecond)); err != nil {
			return err
		}
	}
}

// tryDrop is one transaction. It returns why the partition was kept, if it was.
func (p *pruner) tryDrop(ctx context.Context, partition string) (kept string, err error) {
	step := "drop partition " + partition
	if _, err := p.conn.query(ctx, step, fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = %d", pruneLockTimeout.Milliseconds())); err != nil {
		return "", err
	}
	committed := false
	defer func() {
		if !committed {
			_, rollback := p.conn.query(context.WithoutCancel(ctx), step, "ROLLBACK")
			err = errors.Join(err, rollback)
		}
	}()
	if _, err := p.exec(ctx, step, "LOCK TABLE "+partition+" IN SHARE MODE"); err != nil {
		return busy(err)
	}
	locked := time.Now()
	defer func() { p.report.LongestLock = max(p.report.LongestLock, time.Since(locked).Seconds()) }()
	lsn, err := p.insertLSN(ctx)
	if err != nil {
		return "", err
	}
	confirmed, err := p.awaitConfirmed(ctx, lsn, pruneHold)
	if err != nil {
		return "", err
	}
	if !confirmed {
		return fmt.Sprintf("the slot has not confirmed %s", lsn), nil
	}
	if late, err := p.safe(ctx); late || err != nil {
		return "whether it is safe was not known in time", err
	}
	exclusive := time.Now()
	defer func() { p.report.LongestExclusive = max(p.report.LongestExclusive, time.Since(exclusive).Seconds()) }()
	if _, err := p.exec(ctx, step, "DROP TABLE "+partition); err != nil {
		return busy(err)
	}
	if _, err := p.conn.query(ctx, step, "COMMIT"); err != nil {
		return "", err
	}
	committed = true
	return "", nil
}

// safe asks Safe; no answer in time is late and no error.
func (p *pruner) safe(ctx context.Context) (late bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, pruneSafe)
	defer cancel()
	err = p.in.Safe(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// exec keeps the server's error, whose SQLSTATE the caller asks for.
func (p *pruner) exec(ctx context.Context, step, sql string) (pgconn.CommandTag, error) {
	results, err := p.conn.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && slices.Contains([]string{stateLockNotAvailable, stateDeadlock}, pg.Code) {
			return pgconn.CommandTag{}, pg
		}
		return pgconn.CommandTag{}, p.conn.queryError(ctx, step, err)
	}
	return results[len(results)-1].CommandTag, nil
}

const stateDeadlock = "40P01"

// busy says why an attempt was given up for a lock; other errors stay errors.
func busy(err error) (kept string, _ error) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "others hold a lock that is in the way (SQLSTATE " + pg.Code + ")", nil
	}
	return "", err
}

func (p *pruner) insertLSN(ctx context.Context) (cdc.LSN, error) {
	text, err := p.conn.text(ctx, "read the WAL insert LSN", "SELECT pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		return 0, err
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		return 0, err
	}
	return p.look.WALPages.EndOfData(lsn), p.flusher.flushSoon(ctx)
}

// awaitConfirmed waits until the slot's confirmed LSN is behind lsn. A slot that
// is gone has confirmed nothing.
func (p *pruner) awaitConfirmed(ctx context.Context, lsn cdc.LSN, most time.Duration) (bool, error) {
	for deadline := time.Now().Add(most); ; {
		rows, err := p.conn.query(ctx, "read the slot", "SELECT confirmed_flush_lsn >= '"+lsn.String()+"' FROM pg_catalog.pg_replication_slots WHERE slot_name = "+quoteLiteral(p.cfg.Slot))
		if err != nil {
			return false, err
		}
		if len(rows) == 1 && string(rows[0][0]) == "t" {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := wait(ctx, prunePoll); err != nil {
			return false, err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
