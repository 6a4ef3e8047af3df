package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// deletePause lies between two deletes, so that others get their turn.
const deletePause = 2 * time.Millisecond

// safeEvery is the number of deletes after which Safe is asked again.
const safeEvery = 100

// floor is a transaction id below which every row is published once the slot has
// confirmed lsn: the transactions below it had ended when lsn was read.
type floor struct {
	xid uint32
	lsn cdc.LSN
}

// publishedFloor reads both in one statement, the id first.
func (p *pruner) publishedFloor(ctx context.Context) (floor, error) {
	rows, err := p.conn.query(ctx, "read the published floor", "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()), pg_catalog.pg_current_wal_insert_lsn()")
	if err != nil {
		return floor{}, err
	}
	xid, err := strconv.ParseUint(string(rows[0][0]), 10, 64)
	if err != nil {
		return floor{}, fmt.Errorf("read the published floor: %w", err)
	}
	lsn, err := cdc.ParseLSN(string(rows[0][1]))
	if err != nil {
		return floor{}, err
	}
	return floor{xid: uint32(xid), lsn: p.look.WALPages.EndOfData(lsn)}, p.flusher.flushSoon(ctx)
}

// deleteRows deletes the old rows of one relation. A transaction that is open
// anywhere on the server holds the floor down; so it tries until Wait has passed.
func (p *pruner) deleteRows(ctx context.Context, relation string) error {
	if p.in.DryRun {
		text, err := p.conn.text(ctx, "count old rows of "+relation, "SELECT pg_catalog.count(*) FROM ONLY "+relation+" WHERE "+p.oldRows())
		if err == nil {
			p.report.DeletedRows, err = strconv.ParseInt(text, 10, 64)
		}
		return err
	}
	for deadline := time.Now().Add(p.in.Wait); ; {
		left, err := p.conn.text(ctx, "look for old rows of "+relation, "SELECT EXISTS (SELECT FROM ONLY "+relation+" WHERE "+p.oldRows()+")")
		if err != nil || left != "t" {
			p.report.Kept = ""
			return err
		}
		if p.report.Kept != "" && time.Now().After(deadline) {
			return nil
		}
		f, err := p.publishedFloor(ctx)
		if err != nil {
			return err
		}
		confirmed, err := p.awaitConfirmed(ctx, f.lsn, time.Until(deadline))
		if err != nil {
			return err
		}
		p.report.Kept = fmt.Sprintf("the slot has not confirmed %s", f.lsn)
		if !confirmed {
			continue
		}
		p.report.Kept = fmt.Sprintf("some were written by transactions not below %d, the oldest that was open", f.xid)
		if err := p.deleteBelow(ctx, relation, f); err != nil {
			return err
		}
	}
}

// deleteBelow walks the relation once, some blocks at a time.
func (p *pruner) deleteBelow(ctx context.Context, relation string, f floor) error {
	text, err := p.conn.text(ctx, "measure "+relation, "SELECT pg_catalog.pg_relation_size("+quoteLiteral(relation)+"::pg_catalog.regclass) / pg_catalog.current_setting('block_size')::pg_catalog.int8")
	if err != nil {
		return err
	}
	blocks, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("measure %s: %w", relation, err)
	}
	// Ages compare ids of 32 bits as the server does; a row above the floor is younger.
	where := p.oldRows() + fmt.Sprintf(" AND pg_catalog.age(xmin) > pg_catalog.age('%d'::pg_catalog.xid)", f.xid)
	for from := int64(0); from < blocks; from += pruneBlocks {
		if from%(safeEvery*pruneBlocks) == 0 {
			if err := p.in.Safe(ctx); err != nil {
				return err
			}
		}
		if err := p.deleteBlocks(ctx, relation, where, from); err != nil {
			return err
		}
		if err := wait(ctx, deletePause); err != nil {
			return err
		}
	}
	return wait(ctx, prunePoll)
}

func (p *pruner) deleteBlocks(ctx context.Context, relation, where string, from int64) error {
	began := time.Now()
	tag, err := p.exec(ctx, "delete old rows of "+relation, fmt.Sprintf("DELETE FROM ONLY %s WHERE ctid >= '(%d,0)'::pg_catalog.tid AND ctid < '(%d,0)'::pg_catalog.tid AND %s", relation, from, from+pruneBlocks, where))
	if err != nil {
		return err
	}
	p.report.LongestDelete = max(p.report.LongestDelete, time.Since(began).Seconds())
	p.report.Deletes++
	p.report.DeletedRows += tag.RowsAffected()
	return nil
}

// oldRows is the condition: by the time in the id where it is a UUIDv7, else by
// created_at.
func (p *pruner) oldRows() string {
	id := quoteIdentifier(p.cfg.IDColumn)
	other := "false"
	if p.in.CreatedAt != "" {
		other = quoteIdentifier(p.in.CreatedAt) + " < " + quoteLiteral(p.report.Cutoff.Format(time.RFC3339Nano)) + "::pg_catalog.timestamptz"
	}
	return "CASE WHEN pg_catalog.get_byte(pg_catalog.uuid_send(" + id + "), 6) >> 4 = 7 THEN " + id + " < '" + p.cutoff.String() + "'::pg_catalog.uuid ELSE " + other + " END"
}
