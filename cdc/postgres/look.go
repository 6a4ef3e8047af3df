package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// look is everything that one statement tells about the server, the slot, the
// publication and the table. A name that does not exist leaves its part nil.
type look struct {
	InRecovery  bool             `json:"in_recovery"`
	WALLevel    string           `json:"wal_level"`
	WALPages    cdc.WALPages     `json:"wal_pages"`
	WALEnd      cdc.LSN          `json:"wal_end"`
	Database    string           `json:"database"`
	Role        roleLook         `json:"role"`
	Slot        *slotLook        `json:"slot"`
	Publication *publicationLook `json:"publication"`
	Table       *tableLook       `json:"table"`
	Floor       *floorLook       `json:"floor"` // nil in recovery
}

type roleLook struct {
	Name        string `json:"rolname"`
	Superuser   bool   `json:"rolsuper"`
	Replication bool   `json:"rolreplication"`
}

// slotLook has the columns of pg_replication_slots under their own names; those
// that an old server lacks stay empty.
type slotLook struct {
	Name               string   `json:"slot_name"`
	Plugin             string   `json:"plugin"`
	Database           string   `json:"database"`
	Temporary          bool     `json:"temporary"`
	TwoPhase           bool     `json:"two_phase"`
	Active             bool     `json:"active"`
	ActivePID          int32    `json:"active_pid"`
	ConfirmedFlush     *cdc.LSN `json:"confirmed_flush_lsn"`
	Restart            *cdc.LSN `json:"restart_lsn"`
	WALStatus          string   `json:"wal_status"`
	SafeWALBytes       *int64   `json:"safe_wal_size"`
	InvalidationReason string   `json:"invalidation_reason"`
	Failover           bool     `json:"failover"`
	Synced             bool     `json:"synced"`
}

type publicationLook struct {
	OID       uint32 `json:"oid"`
	XMin      uint32 `json:"xmin"`
	AllTables bool   `json:"all_tables"`
	Insert    bool   `json:"insert"`
	Update    bool   `json:"update"`
	Delete    bool   `json:"delete"`
	Truncate  bool   `json:"truncate"`
	ViaRoot   bool   `json:"via_root"`
	// RelOID is of the row in pg_publication_rel, or in pg_publication_namespace
	// for a publication of the whole schema; 0 when the table is no member, or is
	// one because all tables are.
	RelOID      uint32   `json:"rel_oid"`
	RelXMin     uint32   `json:"rel_xmin"`
	RowFilter   bool     `json:"row_filter"`
	ColumnsSent []string `json:"columns_sent"` // nil: all
}

// floorLook: the snapshot is the statement's own, so it was taken before the LSN
// was read.
type floorLook struct {
	XID cdc.XID8 `json:"xid,string"`
	LSN cdc.LSN  `json:"lsn"`
}

// contains says whether the table is a member.
func (p *publicationLook) contains() bool { return p.RelOID != 0 || p.AllTables }

type tableLook struct {
	OID         uint32   `json:"oid"`
	Kind        string   `json:"kind"`        // relkind: r, p, ...
	Persistence string   `json:"persistence"` // relpersistence: p, u, t
	Partition   bool     `json:"partition"`
	Columns     []string `json:"columns"`
}

func (t *tableLook) partitioned() bool { return t.Kind == "p" }

// lookSQL asks for everything at once, so that it is true at one moment. It
// reads catalogs only, which needs no privilege; names are looked up there and
// not by regclass, which would need USAGE on the schema.
func (cfg *Config) lookSQL(version int) string {
	schema, table, _ := splitTable(cfg.Table)
	nsOID, nsXMin, filter, attributes := "NULL", "NULL", "false", "NULL::text[]"
	if version >= 150000 {
		const namespace = " FROM pg_catalog.pg_publication_namespace AS pn WHERE pn.pnpubid = p.oid AND pn.pnnspid = t.relnamespace)"
		nsOID, nsXMin = "(SELECT pn.oid::int8"+namespace, "(SELECT pn.xmin::text::int8"+namespace
		filter = "pr.prqual IS NOT NULL"
		attributes = `CASE WHEN pr.prattrs IS NOT NULL THEN ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
			WHERE a.attrelid = t.oid AND a.attnum = ANY (pr.prattrs)) END`
	}
	return `SELECT pg_catalog.json_build_object(
	'in_recovery', pg_catalog.pg_is_in_recovery(),
	'wal_level', pg_catalog.current_setting('wal_level'),
	'wal_pages', pg_catalog.json_build_object(
		'block_bytes', (SELECT s.setting::int8 FROM pg_catalog.pg_settings AS s WHERE s.name = 'wal_block_size'),
		'segment_bytes', (SELECT s.setting::int8 FROM pg_catalog.pg_settings AS s WHERE s.name = 'wal_segment_size')),
	'wal_end', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END,
	'floor', CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.json_build_object(
		'xid', pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text, 'lsn', pg_catalog.pg_current_wal_insert_lsn()) END,
	'database', pg_catalog.current_database(),
	'role', (SELECT pg_catalog.row_to_json(r) FROM (SELECT rolname, rolsuper, rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user) AS r),
	'slot', (SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = ` + quoteLiteral(cfg.Slot) + `),
	'table', (SELECT pg_catalog.json_build_object('oid', t.oid::int8, 'kind', t.relkind, 'persistence', t.relpersistence, 'partition', t.relispartition,
		'columns', ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
			WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)) WHERE t.oid IS NOT NULL),
	'publication', (SELECT pg_catalog.json_build_object('oid', p.oid::int8, 'xmin', p.xmin::text::int8, 'all_tables', p.puballtables,
			'insert', p.pubinsert, 'update', p.pubupdate, 'delete', p.pubdelete, 'truncate', p.pubtruncate, 'via_root', p.pubviaroot,
			'rel_oid', coalesce(pr.oid::int8, ` + nsOID + `, 0),
			'rel_xmin', coalesce(pr.xmin::text::int8, ` + nsXMin + `, 0),
			'row_filter', coalesce(` + filter + `, false), 'columns_sent', ` + attributes + `)
		FROM pg_catalog.pg_publication AS p
		LEFT JOIN pg_catalog.pg_publication_rel AS pr ON pr.prpubid = p.oid AND pr.prrelid = t.oid
		WHERE p.pubname = ` + quoteLiteral(cfg.Publication) + `))
FROM (SELECT) AS one LEFT JOIN (
	SELECT c.oid, c.relkind, c.relpersistence, c.relispartition, c.relnamespace
	FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
	WHERE n.nspname = ` + quoteLiteral(schema) + ` AND c.relname = ` + quoteLiteral(table) + ` AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
) AS t ON true`
}

func (cfg *Config) look(ctx context.Context, c *connection) (*look, error) {
	text, err := c.text(ctx, "look at slot, publication and table", cfg.lookSQL(c.version))
	if err != nil {
		return nil, err
	}
	var l look
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return nil, fmt.Errorf("look at slot, publication and table: %w", err)
	}
	return &l, nil
}

// facts puts the look into the core's words.
func (l *look) facts(cfg *Config, id identity, version int) cdc.SourceFacts {
	f := cdc.SourceFacts{
		SystemID: id.systemID, Timeline: id.timeline, ServerVersion: version,
		InRecovery: l.InRecovery, WALLevel: l.WALLevel, WALPages: l.WALPages, WALEnd: l.WALEnd,
	}
	if l.Slot != nil {
		f.Slot = l.Slot.facts()
	}
	if l.Table != nil {
		f.Table = &cdc.TableIdentity{Name: cfg.Table, OID: l.Table.OID}
	}
	if p := l.Publication; p != nil && l.Table != nil && p.contains() {
		f.Publication = &cdc.PublicationFacts{
			PublicationIdentity: cdc.PublicationIdentity{
				Name: cfg.Publication, OID: p.OID, XMin: cdc.XID(p.XMin), RelOID: p.RelOID, RelXMin: cdc.XID(p.RelXMin), ViaRoot: p.ViaRoot,
			},
			PublishesInsert: p.Insert,
		}
	}
	return f
}

func (s *slotLook) facts() *cdc.SlotFacts {
	f := &cdc.SlotFacts{
		Name: s.Name, Plugin: s.Plugin, Database: s.Database, Temporary: s.Temporary, TwoPhase: s.TwoPhase,
		Active: s.Active, ActivePID: s.ActivePID, WALStatus: s.WALStatus, InvalidationReason: s.InvalidationReason,
	}
	if s.ConfirmedFlush != nil {
		f.ConfirmedFlush = *s.ConfirmedFlush
	}
	if s.Restart != nil {
		f.Restart = *s.Restart
	}
	return f
}
