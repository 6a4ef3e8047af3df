package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// minimumVersion is PostgreSQL 14, the first with all that the relay reads.
const minimumVersion = 140000

// problems returns what forbids to stream, all of it. A missing slot, a lost or
// an active one is no problem here: the facts show it and the core decides.
func (l *look) problems(cfg *Config, c *connection) error {
	var errs []error
	add := func(p *cdc.Problem) {
		if p != nil {
			errs = append(errs, p)
		}
	}
	if l.InRecovery {
		add(notPrimary(c.host))
	} else {
		add(walLevelProblem(l.WALLevel))
	}
	add(l.slotProblem(cfg))
	add(l.tableProblem(cfg))
	add(l.publicationProblem(cfg))
	add(l.columnsProblem(cfg))
	return errors.Join(errs...)
}

func versionProblem(version int) *cdc.Problem {
	if version >= minimumVersion {
		return nil
	}
	return &cdc.Problem{Treatment: cdc.Setup, What: fmt.Sprintf("server_version_num is %d", version), Why: "cdc-relay needs PostgreSQL 14 or newer", Fix: "upgrade the server"}
}

func walLevelProblem(level string) *cdc.Problem {
	if level == "logical" {
		return nil
	}
	return &cdc.Problem{
		Treatment: cdc.Setup,
		What:      "wal_level is " + level,
		Why:       "without wal_level = logical the WAL does not contain what decoding needs",
		Fix:       "as superuser: ALTER SYSTEM SET wal_level = 'logical', then restart the server",
	}
}

func (l *look) slotProblem(cfg *Config) *cdc.Problem {
	s := l.Slot
	if s == nil {
		return nil
	}
	var why string
	switch {
	case s.Plugin != "pgoutput":
		why = fmt.Sprintf("its plugin is %q, the relay reads pgoutput", s.Plugin)
	case s.Database != l.Database:
		why = fmt.Sprintf("it belongs to database %q, the connection is to %q", s.Database, l.Database)
	case s.Temporary && !s.Synced:
		why = "it is temporary and ends with the session that made it"
	case s.TwoPhase:
		why = "two_phase is on: the server would send prepared transactions, which may still be rolled back"
	default:
		return nil
	}
	return &cdc.Problem{
		Treatment: cdc.Setup, Reason: cdc.HaltSlotLost,
		What: fmt.Sprintf("slot %q is not the relay's", cfg.Slot), Why: why,
		Fix: fmt.Sprintf("name another slot in postgres.slot, or, if nobody needs this one: SELECT pg_drop_replication_slot('%s'), then cdc-relay init --apply; a relay that has published before: %s", cfg.Slot, cdc.FixResync),
	}
}

// streamChanged is what a person mends first. A relay that has published before
// then asks for adopt --stream, because rows may have been passed over.
func streamChanged(what, why, fix string) *cdc.Problem {
	return &cdc.Problem{Treatment: cdc.Setup, Reason: cdc.HaltStreamChanged, What: what, Why: why, Fix: fix}
}

func (l *look) tableProblem(cfg *Config) *cdc.Problem {
	t := l.Table
	switch {
	case t == nil:
		return streamChanged(fmt.Sprintf("table %s does not exist in database %q", cfg.Table, l.Database), "there is nothing to read",
			"correct postgres.table or the database in postgres.dsn, or make the table: cdc-relay init --with-table")
	case t.Kind != "r" && t.Kind != "p":
		return streamChanged(cfg.Table+" is no table", fmt.Sprintf("its relkind is %q: only tables are in the WAL", t.Kind), "name the table itself in postgres.table")
	case t.Persistence != "p":
		return streamChanged(cfg.Table+" is unlogged or temporary", "its rows are not in the WAL", "ALTER TABLE "+quoteTable(cfg.Table)+" SET LOGGED")
	}
	return nil
}

func (l *look) publicationProblem(cfg *Config) *cdc.Problem {
	name, table := quoteIdentifier(cfg.Publication), quoteTable(cfg.Table)
	p := l.Publication
	switch {
	case p == nil:
		return streamChanged(fmt.Sprintf("publication %q does not exist in database %q", cfg.Publication, l.Database), "the slot is decoded through it",
			"as the table's owner: CREATE PUBLICATION "+name+" FOR TABLE "+table+" WITH (publish = 'insert', publish_via_partition_root = true), or cdc-relay init")
	case l.Table == nil:
		return nil // said by tableProblem
	case !p.contains():
		return streamChanged(fmt.Sprintf("publication %q does not contain table %s", cfg.Publication, cfg.Table), "inserts are passed over without a word",
			"as the table's owner: ALTER PUBLICATION "+name+" ADD TABLE "+table)
	case !p.Insert:
		return streamChanged(fmt.Sprintf("publication %q does not publish inserts", cfg.Publication), "inserts are passed over without a word",
			"as its owner: ALTER PUBLICATION "+name+" SET (publish = 'insert')")
	case l.Table.partitioned() && !p.ViaRoot:
		return streamChanged(fmt.Sprintf("publication %q does not publish via the partition root", cfg.Publication), "rows would arrive under the names of the partitions",
			"as its owner: ALTER PUBLICATION "+name+" SET (publish_via_partition_root = true)")
	}
	return nil
}

func (l *look) columnsProblem(cfg *Config) *cdc.Problem {
	if l.Table == nil {
		return nil
	}
	var missing, unsent []string
	for _, column := range cfg.RequiredColumns {
		switch {
		case !slices.Contains(l.Table.Columns, column):
			missing = append(missing, column)
		case l.Publication != nil && l.Publication.ColumnsSent != nil && !slices.Contains(l.Publication.ColumnsSent, column):
			unsent = append(unsent, column)
		}
	}
	if len(missing) > 0 {
		return streamChanged(fmt.Sprintf("table %s has no column %s", cfg.Table, strings.Join(missing, ", ")), "it has "+strings.Join(l.Table.Columns, ", "),
			"map the columns in postgres.columns, or add them to the table")
	}
	if len(unsent) > 0 {
		return streamChanged(fmt.Sprintf("publication %q leaves out column %s", cfg.Publication, strings.Join(unsent, ", ")), "its column list has "+strings.Join(l.Publication.ColumnsSent, ", "),
			"as the table's owner: ALTER PUBLICATION "+quoteIdentifier(cfg.Publication)+" SET TABLE "+quoteTable(cfg.Table))
	}
	return nil
}

// lostSlot words a slot that is not there or can never be streamed from again.
func (l *look) lostSlot(cfg *Config) *cdc.Problem {
	p := &cdc.Problem{
		Treatment: cdc.Setup, Reason: cdc.HaltSlotLost,
		Fix: "cdc-relay init --apply for a new relay; for one that has published before: " + cdc.FixResync,
	}
	switch {
	case l.Slot == nil:
		p.What, p.Why = fmt.Sprintf("slot %q does not exist", cfg.Slot), "it was never made, was dropped, or did not come along at a failover"
	case l.Slot.facts().Lost():
		p.What, p.Why = fmt.Sprintf("slot %q is lost", cfg.Slot), "the server has invalidated it: "+orDefault(l.Slot.InvalidationReason, "the WAL that it needs was removed (max_slot_wal_keep_size)")
	default:
		return nil
	}
	return p
}
