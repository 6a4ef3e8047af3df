package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// LowestID is the first id that Scan would hand over; zero where there is none.
func (s *OutboxScan) LowestID(ctx context.Context) (audit.ID, error) {
	id := quoteIdentifier(s.cfg.IDColumn)
	rows, err := s.snapshot.query(ctx, "read the lowest id of "+s.cfg.Table, "SELECT "+id+" FROM "+quoteTable(s.cfg.Table)+s.where(audit.Range{})+" ORDER BY "+id+" LIMIT 1")
	if err != nil || len(rows) == 0 {
		return audit.ID{}, err
	}
	return audit.ParseID(rows[0][0])
}

// Created hands over when the rows with these ids were made by the named column,
// in microseconds since 1970, in any order; 0 where the table has no such column
// or the row no time in it.
func (s *OutboxScan) Created(ctx context.Context, ids []audit.ID, column string, each func(id audit.ID, micros int64)) error {
	if !slices.Contains(s.columns, column) {
		for _, id := range ids {
			each(id, 0)
		}
		return nil
	}
	id := quoteIdentifier(s.cfg.IDColumn)
	rows, err := s.snapshot.query(ctx, "read "+column+" of "+s.cfg.Table,
		"SELECT "+id+", coalesce((EXTRACT(epoch FROM "+quoteIdentifier(column)+") * 1000000)::pg_catalog.int8, 0) FROM "+quoteTable(s.cfg.Table)+" WHERE "+id+" = ANY ("+idArray(ids)+")")
	if err != nil {
		return err
	}
	for _, row := range rows {
		found, err := audit.ParseID(row[0])
		if err != nil {
			return err
		}
		micros, err := strconv.ParseInt(string(row[1]), 10, 64)
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", column, s.cfg.Table, err)
		}
		each(found, micros)
	}
	return nil
}

// LeaveOut has later scans leave out the rows that the floor covers. It says false,
// and nothing is left out, where the snapshot has not the floor's witness,
// inserted by the recorded transaction, or where rows cannot be told apart.
func (s *OutboxScan) LeaveOut(ctx context.Context, floor *cdc.PublishedFloor, witness *cdc.LastRow) (bool, error) {
	there, err := s.testifies(ctx, witness)
	if err != nil || !there {
		return false, err
	}
	_, next, err := s.Horizon(ctx)
	if err != nil {
		return false, err
	}
	s.unproved = uncovered(floor, next)
	return s.unproved != "", nil
}

// testifies says whether the snapshot has the row, and of that transaction. A row
// of a subtransaction, or one that was updated, has another xmin: no witness.
func (s *OutboxScan) testifies(ctx context.Context, witness *cdc.LastRow) (bool, error) {
	id, err := audit.ParseID([]byte(witness.EventID))
	if err != nil {
		return false, nil //nolint:nilerr // an id that the outbox cannot be asked for
	}
	rows, err := s.snapshot.query(ctx, "look for the last row of "+s.cfg.Table, fmt.Sprintf("SELECT FROM %s WHERE %s = '%s'::uuid AND xmin = '%d'::pg_catalog.xid",
		quoteTable(s.cfg.Table), quoteIdentifier(s.cfg.IDColumn), id, witness.XID))
	return len(rows) > 0, err
}

// Horizon is what the snapshot knows of transactions: those below oldest had
// ended before it, and no row that it shows is of next or a later one.
func (s *OutboxScan) Horizon(ctx context.Context) (oldest, next cdc.XID8, err error) {
	rows, err := s.snapshot.query(ctx, "read the snapshot", "SELECT pg_catalog.pg_snapshot_xmin(s), pg_catalog.pg_snapshot_xmax(s) FROM pg_catalog.pg_current_snapshot() AS s")
	if err != nil {
		return 0, 0, err
	}
	low, errLow := strconv.ParseUint(string(rows[0][0]), 10, 64)
	high, errHigh := strconv.ParseUint(string(rows[0][1]), 10, 64)
	if err := errors.Join(errLow, errHigh); err != nil {
		return 0, 0, fmt.Errorf("read the snapshot: %w", err)
	}
	return cdc.XID8(low), cdc.XID8(high), nil
}

// uncovered is the condition on rows of which the floor does not prove that they
// are in Kafka; empty where it could leave out none.
//
// A row has the low 32 bits of its transaction's id, also when it was frozen long
// ago, so its transaction may be that number or that number plus any multiple of
// 2^32 below next. It is covered only if all of these lie in [From, XID): the
// lowest, which is the number itself, is not below From, and none is in [XID,
// next). Ids below 3 are no transaction's. (PostgreSQL docs, "Transactions and
// Identifiers".)
func uncovered(floor *cdc.PublishedFloor, next cdc.XID8) string {
	const all = cdc.XID8(1) << 32
	beyond := max(next, floor.XID) - floor.XID
	if floor.From >= all || beyond >= all {
		return ""
	}
	return fmt.Sprintf("(xmin::text::pg_catalog.int8 < %d OR (xmin::text::pg_catalog.int8 + %d) %% %d < %d)",
		max(floor.From, 3), all-floor.XID%all, all, beyond)
}
