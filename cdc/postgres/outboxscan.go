package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// scanRows is how many rows are fetched at a time; the server holds the rest.
const scanRows = 2000

// OutboxScan reads the outbox with a role that may SELECT it: in one snapshot,
// through a cursor, with the same settings of the session as the stream, so that
// every value has the text that the stream sends. It belongs to one goroutine.
type OutboxScan struct {
	cfg      Config
	snapshot *connection // in a transaction
	now      *connection // for what is asked outside of the snapshot
	columns  []string
	commits  bool
	relation *cdc.Relation
	insert   cdc.LSN
	exported string // the snapshot of another session to read; empty: one of its own
	unproved string // condition on the rows that Scan hands over; empty: none
}

var _ audit.Rows = (*OutboxScan)(nil)

// OpenOutboxScan connects to the primary and takes the snapshot. While it is
// open, vacuum keeps rows that were deleted after it.
func OpenOutboxScan(ctx context.Context, cfg Config) (*OutboxScan, error) {
	return OpenOutboxScanIn(ctx, cfg, "")
}

// OpenOutboxScanIn reads in a snapshot that another session has exported, such
// as the one that made a slot; empty is a snapshot of its own.
func OpenOutboxScanIn(ctx context.Context, cfg Config, exported string) (*OutboxScan, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	conn, err := cfg.connect(ctx, connectOptions{})
	if err != nil {
		return nil, err
	}
	s := &OutboxScan{cfg: cfg, snapshot: conn, exported: exported}
	if err := s.begin(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *OutboxScan) begin(ctx context.Context) error {
	l, err := s.cfg.look(ctx, s.snapshot)
	if err != nil {
		return err
	}
	if l.InRecovery {
		return &cdc.Problem{What: "the server is in recovery", Why: "its snapshot cannot be compared with what the slot on the primary has sent", Fix: "name the primary in postgres.audit_dsn_file"}
	}
	if p := l.tableProblem(&s.cfg); p != nil {
		return p
	}
	may, err := s.snapshot.text(ctx, "read the rights on "+s.cfg.Table, fmt.Sprintf("SELECT pg_catalog.has_table_privilege(%d, 'SELECT')", l.Table.OID))
	if err != nil {
		return err
	}
	if may != "t" {
		return &cdc.Problem{
			Treatment: cdc.Setup,
			What:      fmt.Sprintf("role %q may not read table %s", l.Role.Name, s.cfg.Table),
			Why:       "the relay's own role needs no right on the table; audit and backfill do",
			Fix:       "name a role such as outbox_auditor in postgres.audit_dsn_file, after GRANT SELECT ON " + quoteTable(s.cfg.Table) + " TO it",
		}
	}
	s.columns = l.Table.Columns
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
	if s.exported != "" {
		begin += "SET TRANSACTION SNAPSHOT " + quoteLiteral(s.exported) + "; "
	}
	if _, err := s.snapshot.query(ctx, "begin the snapshot", begin+"SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return err
	}
	setting, err := s.snapshot.text(ctx, "read track_commit_timestamp", "SELECT pg_catalog.current_setting('track_commit_timestamp')")
	if err != nil {
		return err
	}
	s.commits = setting == "on"
	// After the first statement took the snapshot: all that it shows lies below.
	text, err := s.snapshot.text(ctx, "read the WAL insert LSN", "SELECT pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		return err
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		return err
	}
	s.insert = l.WALPages.EndOfData(lsn)
	if s.now, err = s.cfg.connect(ctx, connectOptions{}); err != nil {
		return err
	}
	return s.now.flushSoon(ctx)
}

// flushSoon has the WAL writer flush what is inserted by now, by an empty
// transaction with an id. What only readers have written (page pruning) else stays
// unflushed until somebody commits, and is not sent.
func (c *connection) flushSoon(ctx context.Context) error {
	_, err := c.query(ctx, "have the WAL flushed", "SELECT pg_catalog.pg_current_xact_id()")
	return err
}

// InsertLSN is the end of the WAL when the snapshot had been taken: everything
// that it shows was committed below.
func (s *OutboxScan) InsertLSN() cdc.LSN { return s.insert }

// CommitTimestamps says whether the server keeps them.
func (s *OutboxScan) CommitTimestamps() bool { return s.commits }

// Estimate is the planner's guess at the number of rows, for progress.
func (s *OutboxScan) Estimate(ctx context.Context, in audit.Range) (int64, error) {
	rows, err := s.snapshot.query(ctx, "estimate the rows of "+s.cfg.Table, "EXPLAIN SELECT FROM "+quoteTable(s.cfg.Table)+s.where(in))
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	_, after, _ := strings.Cut(string(rows[0][0]), " rows=")
	number, _, _ := strings.Cut(after, " ")
	estimate, _ := strconv.ParseInt(number, 10, 64) // no number: no estimate
	return estimate, nil
}

func (s *OutboxScan) where(in audit.Range) string {
	id := quoteIdentifier(s.cfg.IDColumn)
	var conditions []string
	if !in.From.IsZero() {
		conditions = append(conditions, id+" >= '"+in.From.String()+"'::uuid")
	}
	if !in.To.IsZero() {
		conditions = append(conditions, id+" < '"+in.To.String()+"'::uuid")
	}
	if s.unproved != "" {
		conditions = append(conditions, s.unproved)
	}
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

// selection is what a row is read with: its columns as the stream sends them,
// then what the table knows of its transaction.
func (s *OutboxScan) selection() string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for _, column := range s.columns {
		b.WriteString(quoteIdentifier(column) + ", ")
	}
	b.WriteString("xmin, cmin, ")
	if s.commits {
		b.WriteString("(EXTRACT(epoch FROM pg_catalog.pg_xact_commit_timestamp(xmin)) * 1000000)::pg_catalog.int8")
	} else {
		b.WriteString("NULL")
	}
	b.WriteString(" FROM " + quoteTable(s.cfg.Table))
	return b.String()
}

// Scan implements audit.Rows.
func (s *OutboxScan) Scan(ctx context.Context, in audit.Range, each func(*audit.Row) error) error {
	declare := "DECLARE cdc_relay_audit NO SCROLL CURSOR FOR " + s.selection() + s.where(in) + " ORDER BY " + quoteIdentifier(s.cfg.IDColumn)
	if _, err := s.snapshot.query(ctx, "read "+s.cfg.Table, declare); err != nil {
		return err
	}
	for {
		n, err := s.rows(ctx, s.snapshot, fmt.Sprintf("FETCH %d FROM cdc_relay_audit", scanRows), each)
		if err != nil {
			return err
		}
		if n == 0 {
			_, err := s.snapshot.query(ctx, "read "+s.cfg.Table, "CLOSE cdc_relay_audit")
			return err
		}
	}
}

// ByID hands over the rows with these ids as they are in the snapshot.
func (s *OutboxScan) ByID(ctx context.Context, ids []audit.ID, each func(*audit.Row) error) error {
	id := quoteIdentifier(s.cfg.IDColumn)
	_, err := s.rows(ctx, s.snapshot, s.selection()+" WHERE "+id+" = ANY ("+idArray(ids)+") ORDER BY "+id, each)
	return err
}

func idArray(ids []audit.ID) string {
	var b strings.Builder
	b.WriteString("'{")
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(id.String())
	}
	b.WriteString("}'::uuid[]")
	return b.String()
}

// rows runs one query and hands over its rows without collecting them.
func (s *OutboxScan) rows(ctx context.Context, conn *connection, sql string, each func(*audit.Row) error) (n int, err error) {
	results := conn.pg.Exec(ctx, sql)
	var failed error
	for results.NextResult() {
		reader := results.ResultReader()
		relation := s.relationOf(reader.FieldDescriptions())
		for reader.NextRow() {
			n++
			if failed != nil {
				continue // the protocol has to be read to its end
			}
			var row audit.Row
			if row, failed = s.row(relation, reader.Values()); failed == nil {
				failed = each(&row)
			}
		}
	}
	if err := results.Close(); err != nil {
		return n, errors.Join(failed, conn.queryError(ctx, "read "+s.cfg.Table, err))
	}
	return n, failed
}

// relationOf is the same *Relation for every answer, so that it may be the key
// of a cache.
func (s *OutboxScan) relationOf(fields []pgconn.FieldDescription) *cdc.Relation {
	if s.relation == nil {
		schema, name, _ := splitTable(s.cfg.Table)
		s.relation = &cdc.Relation{Schema: schema, Name: name}
		for _, field := range fields[:len(s.columns)] {
			s.relation.Columns = append(s.relation.Columns, cdc.Column{Name: field.Name, TypeOID: field.DataTypeOID, TypeModifier: field.TypeModifier})
		}
	}
	return s.relation
}

func (s *OutboxScan) row(relation *cdc.Relation, values [][]byte) (audit.Row, error) {
	n := len(s.columns)
	row := audit.Row{Row: cdc.Row{Relation: relation, Values: values[:n:n]}}
	xid, errXID := strconv.ParseUint(string(values[n]), 10, 32)
	command, errCommand := strconv.ParseUint(string(values[n+1]), 10, 32)
	if err := errors.Join(errXID, errCommand); err != nil {
		return row, fmt.Errorf("read %s: xmin or cmin: %w", s.cfg.Table, err)
	}
	row.XID, row.CommandID = cdc.XID(xid), uint32(command)
	if values[n+2] != nil {
		commit, err := strconv.ParseInt(string(values[n+2]), 10, 64)
		if err != nil {
			return row, fmt.Errorf("read %s: commit timestamp: %w", s.cfg.Table, err)
		}
		row.CommitTime = time.UnixMicro(commit).UTC()
	}
	if i := relation.Index(s.cfg.IDColumn); i >= 0 {
		row.EventID = row.Values[i]
	}
	return row, nil
}

// Exist implements audit.Rows, in a session of its own.
func (s *OutboxScan) Exist(ctx context.Context, ids []audit.ID) (map[audit.ID]bool, error) {
	if !s.now.usable() {
		conn, err := s.cfg.connect(ctx, connectOptions{})
		if err != nil {
			return nil, err
		}
		s.now = conn
	}
	id := quoteIdentifier(s.cfg.IDColumn)
	rows, err := s.now.query(ctx, "look for rows of "+s.cfg.Table, "SELECT "+id+" FROM "+quoteTable(s.cfg.Table)+" WHERE "+id+" = ANY ("+idArray(ids)+")")
	if err != nil {
		return nil, err
	}
	exist := make(map[audit.ID]bool, len(rows))
	for _, row := range rows {
		found, err := audit.ParseID(row[0])
		if err != nil {
			return nil, err
		}
		exist[found] = true
	}
	return exist, nil
}

// Close ends the snapshot.
func (s *OutboxScan) Close() {
	s.snapshot.close()
	if s.now != nil {
		s.now.close()
	}
}
