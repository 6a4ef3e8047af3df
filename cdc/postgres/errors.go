package postgres

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// SQLSTATEs that the relay tells apart. (PostgreSQL docs, appendix A.) Texts are
// never compared: they differ by version and by lc_messages.
const (
	stateProtocolViolation    = "08P01"
	stateInvalidPassword      = "28P01"
	stateInvalidAuthorization = "28000"
	stateInvalidCatalog       = "3D000"
	statePrivilege            = "42501"
	stateUndefinedObject      = "42704"
	stateDuplicateObject      = "42710"
	stateTooManyConnections   = "53300"
	stateConfigLimit          = "53400"
	stateNotInState           = "55000"
	stateInUse                = "55006"
	stateLockNotAvailable     = "55P03"
	stateQueryCanceled        = "57014"
	stateAdminShutdown        = "57P01"
	stateCrashShutdown        = "57P02"
	stateCannotConnectNow     = "57P03"
	stateFeatureNotSupported  = "0A000"
)

// errCannotConnectNow is in the chain when the server starts up or shuts down
// (SQLSTATE 57P03); the guard concludes the latter from it.
var errCannotConnectNow = errors.New("not available now")

// serverProblem is the one place that says what an error of the server means.
// What it does not know is retried: the core calls the same failure, again and
// again, a stall.
func serverProblem(step string, pg *pgconn.PgError) *cdc.Problem {
	p := &cdc.Problem{What: step, Why: serverWords(pg)}
	switch pg.Code {
	case stateInvalidPassword:
		p.What += ": the password is refused"
		p.Fix = "put the role's current password into the file that postgres.dsn_file names; it is read again at every attempt. To set one: ALTER ROLE cdc_relay PASSWORD '...'"
	case stateInvalidAuthorization:
		p.What += ": the server does not let this role in"
		p.Fix = "add a line to pg_hba.conf for this database (the word replication does not cover logical replication), then SELECT pg_reload_conf(); check that the role exists and may log in"
	case stateInvalidCatalog:
		p.What += ": the database does not exist"
		p.Fix = "correct the database name in postgres.dsn, or create the database"
	case statePrivilege:
		p.What += ": a privilege is missing"
		p.Fix = "as superuser: ALTER ROLE cdc_relay LOGIN REPLICATION; GRANT CONNECT ON DATABASE ... TO cdc_relay; (managed services have a role for it, such as rds_replication)"
	case stateUndefinedObject:
		p.What += ": an object does not exist"
		p.Fix = "cdc-relay check"
	case stateTooManyConnections, stateConfigLimit:
		p.What += ": the server is at a limit of connections or slots"
		p.Fix = "free one, or raise max_connections, max_wal_senders or max_replication_slots, or the role's CONNECTION LIMIT"
	case stateInUse:
		p.What += ": the slot is active elsewhere"
		p.Fix = "nothing, if another replica of this relay holds it; else SELECT active_pid FROM pg_replication_slots"
		p.Err = cdc.ErrSlotActive
	case stateNotInState:
		p.What += ": the server or an object is not in the state for it"
		p.Fix = "cdc-relay check"
	case stateCannotConnectNow:
		p.What += ": the server takes no connections"
		p.Fix = "wait; the relay reconnects by itself"
		p.Err = errCannotConnectNow
	case stateAdminShutdown, stateCrashShutdown:
		p.What += ": the server is shutting down or ended the session"
		p.Fix = "wait; the relay reconnects by itself"
	}
	return p
}

// serverWords are the server's own, with the SQLSTATE.
func serverWords(pg *pgconn.PgError) string {
	words := []string{fmt.Sprintf("%s: %s, SQLSTATE %s", pg.Severity, pg.Message, pg.Code)}
	for _, more := range []string{pg.Detail, pg.Hint} {
		if more != "" {
			words = append(words, more)
		}
	}
	return strings.Join(words, "; ")
}

// connectProblem words a failed attempt to connect.
func (c *connection) connectProblem(err error) *cdc.Problem {
	step := "connect to Postgres at " + c.host
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// A pooler refuses the startup parameter replication; Postgres itself never
		// calls our startup packet a protocol violation.
		if pg.Code == stateProtocolViolation || pg.Code == stateFeatureNotSupported {
			return notPostgres(c.host, serverWords(pg))
		}
		return serverProblem(step, pg)
	}
	if _, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok || c.first.read && !startsLikePostgres(c.first.byte) {
		return notPostgres(c.host, c.scrub(rootText(err)))
	}
	return &cdc.Problem{
		What: step,
		Why:  c.scrub(rootText(err)),
		Fix:  "check that the server runs and is reachable from here (host, port, firewall), and that it offers TLS as sslmode demands",
	}
}

// firstByte remembers the first byte that a server sends, by which another
// protocol is known.
type firstByte struct {
	src  io.Reader
	byte byte
	read bool
}

// Read implements io.Reader.
func (f *firstByte) Read(p []byte) (int, error) {
	n, err := f.src.Read(p)
	if n > 0 && !f.read {
		f.read, f.byte = true, p[0]
	}
	return n, err
}

// startsLikePostgres knows the first bytes that a server may answer the startup
// packet with: Authentication, ErrorResponse, Notice, NegotiateProtocolVersion.
func startsLikePostgres(first byte) bool { return strings.IndexByte("RENv", first) >= 0 }

func notPostgres(host, why string) *cdc.Problem {
	return &cdc.Problem{
		Treatment: cdc.Setup,
		What:      "what answers at " + host + " is not a Postgres server that takes replication connections",
		Why:       why,
		Fix:       "point postgres.dsn at the server itself: connection poolers such as PgBouncer do not pass logical replication on",
	}
}

// rootText is the text of an error without pgconn's own frame around it, which
// repeats user, database and address.
func rootText(err error) string {
	if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		if inner := connect.Unwrap(); inner != nil {
			return strings.ReplaceAll(inner.Error(), "\n", "; ")
		}
	}
	return err.Error()
}

// notPrimary says that the server is a standby.
func notPrimary(host string) *cdc.Problem {
	return &cdc.Problem{
		What: "the server at " + host + " is in recovery",
		Why:  "the slot is streamed from the primary",
		Fix:  "wait for its promotion, or point postgres.dsn at the primary",
	}
}
