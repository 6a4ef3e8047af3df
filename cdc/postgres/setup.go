package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Admin makes and drops what the relay needs on the server, on command of a
// person. Its Config's DSN is that of whoever may do it. Each method opens its
// own session.
type Admin struct{ cfg Config }

// NewAdmin checks the config and connects to nothing.
func NewAdmin(cfg Config) (*Admin, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Admin{cfg: cfg}, nil
}

// Who must run a step.
const (
	BySuperuser  = "superuser"
	ByTableOwner = "table owner"
	ByRelayRole  = "relay role"
)

// Step is one piece of the setup, for people who run it by hand.
type Step struct {
	Who   string
	Title string
	SQL   string
}

// Steps returns the setup in the order in which it has to be run, each step
// outside of a transaction with others: a slot cannot be made in a transaction
// that has written, and must be younger than the publication. role is the
// relay's; database and failover as for the slot.
func (a *Admin) Steps(role, database string, failover bool) []Step {
	r, p, t := quoteIdentifier(role), quoteIdentifier(a.cfg.Publication), quoteTable(a.cfg.Table)
	slot := "SELECT pg_catalog.pg_create_logical_replication_slot(" + quoteLiteral(a.cfg.Slot) + ", 'pgoutput')"
	if failover {
		slot = strings.TrimSuffix(slot, ")") + ", failover => true)"
	}
	return []Step{
		{BySuperuser, "the relay's role, which needs no right on any table", "CREATE ROLE " + r + " LOGIN REPLICATION;\nGRANT CONNECT ON DATABASE " + quoteIdentifier(database) + " TO " + r + ";"},
		{ByTableOwner, "the publication (needs CREATE on the database), before the slot", a.createPublication() + ";"},
		{ByRelayRole, "the slot", slot + ";"},
		{ByTableOwner, "see that all is there", "SELECT * FROM pg_catalog.pg_publication_tables WHERE pubname = " + quoteLiteral(a.cfg.Publication) + "; -- want " + commentSafe(t+" in "+p)},
	}
}

// commentSafe keeps a name with a line break from ending a comment.
func commentSafe(s string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(s) }

func (a *Admin) createPublication() string {
	return "CREATE PUBLICATION " + quoteIdentifier(a.cfg.Publication) + " FOR TABLE " + quoteTable(a.cfg.Table) + " WITH (publish = 'insert', publish_via_partition_root = true)"
}

// EnsurePublication makes the publication and reports whether it did: false
// means that it was there, as it has to be.
func (a *Admin) EnsurePublication(ctx context.Context) (made bool, err error) {
	conn, l, err := a.look(ctx, connectOptions{})
	if err != nil {
		return false, err
	}
	defer conn.close()
	if p := l.tableProblem(&a.cfg); p != nil {
		return false, p
	}
	if l.Publication != nil {
		return false, asError(l.publicationProblem(&a.cfg))
	}
	if l.Slot != nil {
		return false, &cdc.Problem{
			Treatment: cdc.Setup, Reason: cdc.HaltStreamChanged,
			What: fmt.Sprintf("slot %q is older than publication %q, which does not exist", a.cfg.Slot, a.cfg.Publication),
			Why:  "decoding looks the publication up as of each row: the server stops at rows from before, or from PostgreSQL 18 on passes them over",
			Fix:  fmt.Sprintf("SELECT pg_drop_replication_slot('%s'), then cdc-relay init --apply; a relay that has published before: %s, then %s", a.cfg.Slot, a.createPublication(), cdc.FixResync),
		}
	}
	_, err = conn.query(ctx, fmt.Sprintf("create publication %q", a.cfg.Publication), a.createPublication())
	return err == nil, err
}

// asError keeps a nil Problem from becoming a non-nil error.
func asError(p *cdc.Problem) error {
	if p == nil {
		return nil
	}
	return p
}

func (a *Admin) look(ctx context.Context, opts connectOptions) (*connection, *look, error) {
	conn, err := a.cfg.connect(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	l, err := a.cfg.look(ctx, conn)
	if err != nil {
		conn.close()
		return nil, nil, err
	}
	return conn, l, nil
}

// SlotOptions say how a slot is made.
type SlotOptions struct {
	Failover bool // PostgreSQL 17 and newer; an error before
	// ExportSnapshot makes a snapshot of the consistent point, importable until
	// Release.
	ExportSnapshot bool
	// Timeout bounds the wait for transactions that are open now; default 30 s.
	Timeout time.Duration
}

const defaultSlotTimeout = 30 * time.Second

// cancelAgain lies between two cancels of one command: one that comes before the
// server has read the command is lost.
const cancelAgain = time.Second

// CreatedSlot is a slot that was made, or was there.
type CreatedSlot struct {
	// ConsistentPoint is where decoding begins; of a slot that was there, its
	// confirmed_flush_lsn.
	ConsistentPoint cdc.LSN
	AlreadyThere    bool
	Snapshot        string // exported; empty if not asked for
	conn            *connection
}

// Release ends the exported snapshot. It may be called more than once.
func (s *CreatedSlot) Release() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// CreateSlot makes the slot, or reports the one that is there and is the
// relay's. The caller releases the result.
func (a *Admin) CreateSlot(ctx context.Context, opts SlotOptions) (*CreatedSlot, error) {
	conn, l, err := a.look(ctx, connectOptions{replication: true})
	if err != nil {
		return nil, err
	}
	slot, err := a.createSlot(ctx, conn, l, opts)
	if err != nil || slot.Snapshot == "" {
		conn.close()
	}
	if err == nil && slot.Snapshot != "" {
		slot.conn = conn
	}
	return slot, err
}

func (a *Admin) createSlot(ctx context.Context, conn *connection, l *look, opts SlotOptions) (*CreatedSlot, error) {
	for _, p := range []*cdc.Problem{l.slotProblem(&a.cfg), l.tableProblem(&a.cfg), l.publicationProblem(&a.cfg)} {
		if p != nil {
			return nil, p
		}
	}
	if l.Slot != nil {
		if p := l.lostSlot(&a.cfg); p != nil {
			return nil, p
		}
		return &CreatedSlot{AlreadyThere: true, ConsistentPoint: l.Slot.facts().ConfirmedFlush}, nil
	}
	if l.InRecovery {
		return nil, notPrimary(conn.host)
	}
	if p := walLevelProblem(l.WALLevel); p != nil {
		return nil, p
	}
	command, err := createSlotCommand(a.cfg.Slot, conn.version, opts)
	if err != nil {
		return nil, err
	}
	return a.runCreateSlot(ctx, conn, command, opts)
}

func createSlotCommand(slot string, version int, opts SlotOptions) (string, error) {
	snapshot := "NOEXPORT_SNAPSHOT"
	if opts.ExportSnapshot {
		snapshot = "EXPORT_SNAPSHOT"
	}
	if !opts.Failover {
		return "CREATE_REPLICATION_SLOT " + slot + " LOGICAL pgoutput " + snapshot, nil
	}
	if version < 170000 {
		return "", &cdc.Problem{Treatment: cdc.Setup, What: "a failover slot cannot be made", Why: "failover slots exist from PostgreSQL 17 on", Fix: "set postgres.slot_failover to false"}
	}
	word := map[bool]string{false: "nothing", true: "export"}[opts.ExportSnapshot]
	return "CREATE_REPLICATION_SLOT " + slot + " LOGICAL pgoutput (FAILOVER true, SNAPSHOT '" + word + "')", nil
}

// runCreateSlot waits for the server, which waits for every transaction that is
// open and has written, in any database. At the timeout it cancels on the
// server: merely to hang up would leave a slot behind once those transactions end.
func (a *Admin) runCreateSlot(ctx context.Context, conn *connection, command string, opts SlotOptions) (*CreatedSlot, error) {
	step := fmt.Sprintf("create slot %q", a.cfg.Slot)
	timeout := opts.Timeout
	if timeout <= 0 {
		timeout = defaultSlotTimeout
	}
	outcomes := make(chan slotOutcome, 1) // the goroutine never waits for us
	execCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		result, err := pglogrepl.ParseCreateReplicationSlot(conn.pg.Exec(execCtx, command))
		outcomes <- slotOutcome{result, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var late error
	var out slotOutcome
	select {
	case out = <-outcomes:
	case <-timer.C:
		late = a.blocked(ctx, timeout)
	case <-ctx.Done():
		late = fmt.Errorf("%s: %w", step, context.Cause(ctx))
	}
	if late != nil {
		var unheard error
		if out, unheard = a.cancelSlot(ctx, conn, outcomes, stop); out.err != nil {
			return nil, errors.Join(late, unheard)
		}
	}
	if out.err != nil {
		return nil, a.createSlotError(ctx, conn, step, out.err)
	}
	point, err := cdc.ParseLSN(out.result.ConsistentPoint)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	return &CreatedSlot{ConsistentPoint: point, Snapshot: out.result.SnapshotName}, nil
}

// slotOutcome is the server's answer to CREATE_REPLICATION_SLOT.
type slotOutcome struct {
	result pglogrepl.CreateReplicationSlotResult
	err    error
}

// cancelSlot returns what became of a command that it has cancelled: the slot may
// have been made just before. It hangs up when the server hears no cancel.
func (a *Admin) cancelSlot(ctx context.Context, conn *connection, outcomes <-chan slotOutcome, hangUp func()) (out slotOutcome, unheard error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.ConnectTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, hangUp)()
	again := time.NewTicker(cancelAgain)
	defer again.Stop()
	for {
		if err := conn.pg.CancelRequest(ctx); err != nil {
			unheard = fmt.Errorf("cancel on the server: %w", err)
		}
		select {
		case out = <-outcomes:
			return out, unheard
		case <-again.C:
		}
	}
}

func (a *Admin) createSlotError(ctx context.Context, conn *connection, step string, err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == stateDuplicateObject {
		return &cdc.Problem{What: step + ": somebody else made it just now", Why: serverWords(pg), Fix: "run the command again"}
	}
	return conn.queryError(ctx, step, err)
}

// blocked names the transactions that a new slot waits for.
func (a *Admin) blocked(ctx context.Context, waited time.Duration) error {
	p := &cdc.Problem{
		What: fmt.Sprintf("slot %q could not be made within %s", a.cfg.Slot, waited),
		Why:  "a new slot waits for every open transaction that has written, in any database",
		Fix:  "end them (SELECT pg_terminate_backend(pid); ROLLBACK PREPARED 'gid'), or run the command when they are over",
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.ConnectTimeout)
	defer cancel()
	conn, err := a.cfg.connect(ctx, connectOptions{})
	if err != nil {
		return p
	}
	defer conn.close()
	rows, err := conn.query(ctx, "name the blockers", `SELECT pg_catalog.format('pid %s of %s in %s since %s', pid, usename, datname, coalesce(xact_start::text, '?'))
		FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
		UNION ALL SELECT pg_catalog.format('prepared transaction %L of %s in %s since %s', gid, owner, database, prepared) FROM pg_catalog.pg_prepared_xacts`)
	if err != nil {
		return p
	}
	var blockers []string
	for _, row := range rows {
		blockers = append(blockers, string(row[0]))
	}
	if len(blockers) > 0 {
		p.Why += ": " + strings.Join(blockers, "; ")
	}
	return p
}

// DropSlot drops the slot and reports whether it did: false means that there was
// none. An error wrapping cdc.ErrSlotActive means that it is in use.
func (a *Admin) DropSlot(ctx context.Context) (bool, error) {
	conn, err := a.cfg.connect(ctx, connectOptions{replication: true})
	if err != nil {
		return false, err
	}
	defer conn.close()
	err = pglogrepl.DropReplicationSlot(ctx, conn.pg, a.cfg.Slot, pglogrepl.DropReplicationSlotOptions{})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == stateUndefinedObject {
		return false, nil
	}
	if err != nil {
		return false, conn.queryError(ctx, fmt.Sprintf("drop slot %q", a.cfg.Slot), err)
	}
	return true, nil
}
