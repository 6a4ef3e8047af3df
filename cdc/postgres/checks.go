package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Level grades a Finding.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelWarn    Level = "warn"
	LevelFail    Level = "fail"
	LevelSkipped Level = "skipped" // could not be looked at, because another check failed
)

// Finding is what one check found. Problem says it in a sentence, also when all
// is well.
type Finding struct {
	Name    string `json:"name"`
	Level   Level  `json:"level"`
	Problem string `json:"problem"`
	Why     string `json:"why,omitempty"`
	Fix     string `json:"fix,omitempty"`
}

// The names of all checks, in the order of the findings.
const (
	checkConnection  = "connection"
	checkTLS         = "tls"
	checkVersion     = "version"
	checkRecovery    = "recovery"
	checkWALLevel    = "wal_level"
	checkRole        = "role"
	checkCapacity    = "capacity"
	checkTable       = "table"
	checkColumns     = "columns"
	checkPublication = "publication"
	checkInsertOnly  = "publication inserts only"
	checkSlot        = "slot"
	checkSlotActive  = "slot activity"
	checkRetention   = "max_slot_wal_keep_size"
	checkSender      = "wal_sender_timeout"
	checkIdle        = "idle_replication_slot_timeout"
	checkLongOpen    = "long transactions"
)

const (
	smallKeepBytes    = 1 << 30
	longOpenSeconds   = 300
	longSenderTimeout = 60_000 // milliseconds: PostgreSQL's default
)

// settingsLook is what only check asks for.
type settingsLook struct {
	KeepMB        int64  `json:"keep_mb"`
	SenderTimeout int64  `json:"sender_timeout_ms"`
	IdleTimeout   *int64 `json:"idle_timeout_s"`
	MaxSenders    int64  `json:"max_senders"`
	Senders       int64  `json:"senders"`
	MaxSlots      int64  `json:"max_slots"`
	Slots         int64  `json:"slots"`
	LongOpen      []struct {
		PID     int32   `json:"pid"`
		User    string  `json:"usename"`
		Seconds float64 `json:"seconds"`
	} `json:"long_open"`
	ActiveBy *string `json:"active_by"`
	TLS      *string `json:"tls"`
}

// settingsSQL names settings that may not exist by reading pg_settings.
func (cfg *Config) settingsSQL() string {
	setting := func(name string) string {
		return "(SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = '" + name + "')"
	}
	return `SELECT pg_catalog.json_build_object(
	'keep_mb', ` + setting("max_slot_wal_keep_size") + `, 'sender_timeout_ms', ` + setting("wal_sender_timeout") + `,
	'idle_timeout_s', ` + setting("idle_replication_slot_timeout") + `,
	'max_senders', ` + setting("max_wal_senders") + `, 'max_slots', ` + setting("max_replication_slots") + `,
	'senders', (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'),
	'slots', (SELECT count(*) FROM pg_catalog.pg_replication_slots),
	'long_open', coalesce((SELECT pg_catalog.json_agg(l) FROM (
		SELECT pid, usename, extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8 AS seconds FROM pg_catalog.pg_stat_activity
		WHERE backend_xid IS NOT NULL AND xact_start < pg_catalog.clock_timestamp() - interval '` + strconv.Itoa(longOpenSeconds) + ` s' ORDER BY xact_start LIMIT 5) AS l), '[]'),
	'active_by', (SELECT pg_catalog.format('pid %s, role %s, application %s, from %s', a.pid, a.usename, a.application_name, coalesce(a.client_addr::text, 'a local socket'))
		FROM pg_catalog.pg_replication_slots AS s JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid WHERE s.slot_name = ` + quoteLiteral(cfg.Slot) + `),
	'tls', (SELECT pg_catalog.concat_ws(' ', version, cipher) FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl))`
}

// Check runs every check for people; none stops another. What cannot be looked
// at is skipped.
func (s *Source) Check(ctx context.Context) []Finding {
	l, err := s.look(ctx)
	if err != nil {
		return unreachable(err)
	}
	conn := s.conn
	findings := []Finding{
		{Name: checkConnection, Level: LevelOK, Problem: fmt.Sprintf("connected to database %q at %s as %q", l.Database, conn.host, l.Role.Name)},
		verdict(checkVersion, versionProblem(conn.version), "PostgreSQL "+versionText(conn.version)),
		l.checkRecovery(conn),
		verdict(checkWALLevel, walLevelProblem(l.WALLevel), "wal_level is logical"),
		l.checkRole(),
		verdict(checkTable, l.tableProblem(&s.cfg), s.cfg.Table+" is there"),
		dependent(checkColumns, l.Table != nil, "the table does not exist", func() Finding {
			return verdict(checkColumns, l.columnsProblem(&s.cfg), "the table has all columns that are needed")
		}),
		dependent(checkPublication, l.Table != nil || l.Publication == nil, "the table does not exist", func() Finding {
			return verdict(checkPublication, l.publicationProblem(&s.cfg), fmt.Sprintf("publication %q contains the table", s.cfg.Publication))
		}),
		dependent(checkInsertOnly, l.Publication != nil, "the publication does not exist", l.checkInsertOnly),
		l.checkSlot(&s.cfg),
	}
	return append(findings, s.checkSettings(ctx, l)...)
}

func unreachable(err error) []Finding {
	p := cdc.AsProblem(err)
	findings := []Finding{{Name: checkConnection, Level: LevelFail, Problem: p.What, Why: p.Why, Fix: p.Fix}}
	for _, name := range []string{
		checkVersion, checkRecovery, checkWALLevel, checkRole, checkTable, checkColumns, checkPublication, checkInsertOnly, checkSlot,
		checkTLS, checkCapacity, checkSlotActive, checkRetention, checkSender, checkIdle, checkLongOpen,
	} {
		findings = append(findings, skipped(name, "there is no connection"))
	}
	return findings
}

func skipped(name, why string) Finding {
	return Finding{Name: name, Level: LevelSkipped, Problem: "not looked at", Why: why}
}

func dependent(name string, possible bool, why string, check func() Finding) Finding {
	if !possible {
		return skipped(name, why)
	}
	return check()
}

func verdict(name string, p *cdc.Problem, fine string) Finding {
	if p == nil {
		return Finding{Name: name, Level: LevelOK, Problem: fine}
	}
	return Finding{Name: name, Level: LevelFail, Problem: p.What, Why: p.Why, Fix: p.Fix}
}

func versionText(version int) string { return fmt.Sprintf("%d.%d", version/10000, version%10000) }

func (l *look) checkRecovery(conn *connection) Finding {
	if l.InRecovery {
		return verdict(checkRecovery, notPrimary(conn.host), "")
	}
	return Finding{Name: checkRecovery, Level: LevelOK, Problem: "the server is a primary"}
}

func (l *look) checkRole() Finding {
	f := Finding{Name: checkRole, Level: LevelOK, Problem: fmt.Sprintf("role %q has REPLICATION", l.Role.Name)}
	switch {
	case l.Role.Superuser:
		f.Level, f.Problem = LevelWarn, fmt.Sprintf("role %q is a superuser", l.Role.Name)
		f.Why, f.Fix = "the relay needs LOGIN, REPLICATION and CONNECT, and nothing else", "use a role of its own: cdc-relay init prints the SQL"
	case !l.Role.Replication:
		// The replication connection worked: a managed service has its own way.
		f.Problem = fmt.Sprintf("role %q may replicate by the right of another role", l.Role.Name)
	}
	return f
}

func (l *look) checkInsertOnly() Finding {
	p := l.Publication
	f := Finding{Name: checkInsertOnly, Level: LevelOK, Problem: "only inserts are published"}
	var also []string
	for _, kind := range []struct {
		on   bool
		name string
	}{{p.Update, "updates"}, {p.Delete, "deletes"}, {p.Truncate, "truncates"}} {
		if kind.on {
			also = append(also, kind.name)
		}
	}
	switch {
	case p.RowFilter:
		f.Level, f.Problem, f.Why = LevelWarn, "the publication has a row filter", "rows that do not match are never published"
		f.Fix = "ALTER PUBLICATION ... SET TABLE ... without WHERE, unless it is meant so"
	case p.AllTables:
		f.Level, f.Problem, f.Why = LevelWarn, "the publication is FOR ALL TABLES", "every write of the database is sent to the relay, which drops it"
		f.Fix = "make a publication FOR TABLE of the outbox alone"
	case len(also) > 0:
		f.Level, f.Problem = LevelWarn, strings.Join(also, ", ")+" are published too"
		f.Why = "they are no events; without a replica identity the application's own UPDATE and DELETE fail"
		f.Fix = "ALTER PUBLICATION ... SET (publish = 'insert')"
	}
	return f
}

func (l *look) checkSlot(cfg *Config) Finding {
	p := l.slotProblem(cfg)
	if p == nil {
		p = l.lostSlot(cfg)
	}
	if p != nil {
		return verdict(checkSlot, p, "")
	}
	return Finding{Name: checkSlot, Level: LevelOK, Problem: fmt.Sprintf("slot %q stands at %s", cfg.Slot, l.Slot.facts().ConfirmedFlush)}
}

func (s *Source) checkSettings(ctx context.Context, l *look) []Finding {
	var set settingsLook
	text, err := s.conn.text(ctx, "read the settings", s.cfg.settingsSQL())
	if err == nil {
		err = json.Unmarshal([]byte(text), &set)
	}
	if err != nil {
		var findings []Finding
		for _, name := range []string{checkTLS, checkCapacity, checkSlotActive, checkRetention, checkSender, checkIdle, checkLongOpen} {
			findings = append(findings, skipped(name, err.Error()))
		}
		return findings
	}
	return []Finding{
		set.checkTLS(s.conn), set.checkCapacity(l), set.checkActive(l), set.checkRetention(), set.checkSender(), set.checkIdle(), set.checkLongOpen(),
	}
}

func (set *settingsLook) checkTLS(conn *connection) Finding {
	switch {
	case set.TLS != nil:
		return Finding{Name: checkTLS, Level: LevelOK, Problem: *set.TLS}
	case conn.network == "unix":
		return Finding{Name: checkTLS, Level: LevelOK, Problem: "a Unix socket needs none"}
	case strings.HasPrefix(conn.address, "127.") || strings.HasPrefix(conn.address, "[::1]"):
		return Finding{Name: checkTLS, Level: LevelOK, Problem: "loopback needs none"}
	}
	return Finding{Name: checkTLS, Level: LevelWarn, Problem: "the connection is not encrypted", Why: "rows and the password can be read on the way", Fix: "sslmode=verify-full in postgres.dsn"}
}

func (set *settingsLook) checkCapacity(l *look) Finding {
	f := Finding{Name: checkCapacity, Level: LevelOK, Problem: fmt.Sprintf("%d of %d walsenders and %d of %d slots are in use", set.Senders, set.MaxSenders, set.Slots, set.MaxSlots)}
	noSlot := l.Slot == nil && set.Slots >= set.MaxSlots
	if set.Senders+1 > set.MaxSenders || noSlot {
		f.Level = LevelFail
		f.Why = "the relay needs a walsender for the stream and one more for a moment, and a slot"
		f.Fix = "raise max_wal_senders or max_replication_slots (restart), or free one"
	}
	return f
}

func (set *settingsLook) checkActive(l *look) Finding {
	if l.Slot == nil {
		return skipped(checkSlotActive, "the slot does not exist")
	}
	f := Finding{Name: checkSlotActive, Level: LevelOK, Problem: "nobody streams from the slot"}
	if l.Slot.Active {
		by := fmt.Sprintf("pid %d", l.Slot.ActivePID)
		if set.ActiveBy != nil {
			by = *set.ActiveBy
		}
		f.Problem = "the slot is active: " + by
	}
	return f
}

func (set *settingsLook) checkRetention() Finding {
	f := Finding{Name: checkRetention, Level: LevelOK, Problem: fmt.Sprintf("%d MB", set.KeepMB)}
	switch {
	case set.KeepMB < 0:
		f.Level, f.Problem = LevelWarn, "unlimited"
		f.Why = "a relay that is away for long fills the server's disk with WAL"
		f.Fix = "ALTER SYSTEM SET max_slot_wal_keep_size to what the disk can spare, and alert on the slot's lag"
	case set.KeepMB<<20 < smallKeepBytes:
		f.Level = LevelWarn
		f.Why = "a short absence of the relay loses the slot, and the relay halts"
		f.Fix = "ALTER SYSTEM SET max_slot_wal_keep_size to hours of WAL"
	}
	return f
}

func (set *settingsLook) checkSender() Finding {
	f := Finding{Name: checkSender, Level: LevelOK, Problem: fmt.Sprintf("%d ms", set.SenderTimeout)}
	const fix = "ALTER ROLE cdc_relay SET wal_sender_timeout = '10s' (takes effect at the next connection)"
	switch {
	case set.SenderTimeout == 0:
		f.Level, f.Problem, f.Why, f.Fix = LevelWarn, "0: never", "a relay whose host vanished would hold the slot until TCP gives up", fix
	case set.SenderTimeout >= longSenderTimeout:
		f.Level, f.Why, f.Fix = LevelWarn, "so long does a standby wait when the active relay's host vanishes", fix
	}
	return f
}

func (set *settingsLook) checkIdle() Finding {
	switch {
	case set.IdleTimeout == nil:
		return Finding{Name: checkIdle, Level: LevelOK, Problem: "this version has none"}
	case *set.IdleTimeout == 0:
		return Finding{Name: checkIdle, Level: LevelOK, Problem: "off"}
	}
	return Finding{
		Name: checkIdle, Level: LevelWarn, Problem: fmt.Sprintf("%d s", *set.IdleTimeout),
		Why: "a relay that is away for longer loses its slot, and the relay halts",
		Fix: "ALTER SYSTEM SET idle_replication_slot_timeout = 0, or alert well before it",
	}
}

func (set *settingsLook) checkLongOpen() Finding {
	if len(set.LongOpen) == 0 {
		return Finding{Name: checkLongOpen, Level: LevelOK, Problem: "none"}
	}
	var open []string
	for _, t := range set.LongOpen {
		open = append(open, fmt.Sprintf("pid %d of %s for %.0f s", t.PID, t.User, t.Seconds))
	}
	return Finding{
		Name: checkLongOpen, Level: LevelWarn, Problem: strings.Join(open, "; "),
		Why: "an open transaction that has written holds back restart_lsn, and a new slot waits for it",
		Fix: "end it: SELECT pg_terminate_backend(pid)",
	}
}
