package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// connection is one session. It speaks the simple protocol only, which is all
// that a replication connection offers.
type connection struct {
	pg      *pgconn.PgConn
	version int     // server_version_num
	reader  *reader // nil until the server was reached
	first   firstByte
	host    string // for texts: host:port or the socket's folder
	network string // where it is really connected to
	address string
	notice  func(*pgconn.Notice)
	scrub   func(string) string
}

// connectOptions say what a connection is for.
type connectOptions struct {
	replication bool
	// to pins the server: the network and address of another connection.
	to *connection
	// socket prepares the socket; it may be nil.
	socket socketControl
}

// connect opens a session. Its errors are *cdc.Problem, or ctx's own.
func (cfg *Config) connect(ctx context.Context, opts connectOptions) (*connection, error) {
	config, err := cfg.connConfig()
	if err != nil {
		return nil, err
	}
	secrets := dsnSettings{"password": config.Password}
	c := &connection{host: hostText(config), scrub: secrets.scrub}
	if opts.replication {
		config.RuntimeParams["replication"] = "database"
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if opts.to != nil {
			network, address = opts.to.network, opts.to.address
		}
		conn, err := cfg.dialWith(ctx, network, address, opts.socket)
		if err != nil {
			return nil, err
		}
		c.network, c.address = network, address
		c.reader = newReader(conn)
		return c.reader, nil
	}
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.first = firstByte{src: r}
		return pgproto3.NewFrontend(&c.first, w)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if c.notice != nil {
			c.notice(n)
		}
	}
	c.pg, err = pgconn.ConnectConfig(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to Postgres at %s: %w", c.host, context.Cause(ctx))
		}
		return nil, c.connectProblem(err)
	}
	if err := errors.Join(c.identifyVersion(ctx), c.matchEncoding(ctx)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// matchEncoding asks for bytes as they are where the database does not know
// what they mean: to UTF8, which is asked for elsewhere, the server would only
// let pass what happens to be valid. (PostgreSQL docs, "Automatic Character Set
// Conversion Between Server and Client".)
func (c *connection) matchEncoding(ctx context.Context) error {
	const unknown = "SQL_ASCII"
	if c.pg.ParameterStatus("server_encoding") != unknown {
		return nil
	}
	_, err := c.query(ctx, "set client_encoding", "SET client_encoding = '"+unknown+"'")
	return err
}

func hostText(config *pgconn.Config) string {
	if strings.HasPrefix(config.Host, "/") {
		return config.Host
	}
	return net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
}

func (c *connection) identifyVersion(ctx context.Context) error {
	rows, err := c.query(ctx, "read the server's version", "SHOW server_version_num")
	if err != nil {
		return err
	}
	if len(rows) == 1 && len(rows[0]) == 1 {
		c.version, err = strconv.Atoi(string(rows[0][0]))
	}
	if c.version == 0 {
		return notPostgres(c.host, fmt.Sprintf("server_version_num is not a number (%v)", err))
	}
	return asError(versionProblem(c.version)) // older catalogs lack what is asked for next
}

// query runs one statement and returns its rows in text format. step names it
// in errors.
func (c *connection) query(ctx context.Context, step, sql string) ([][][]byte, error) {
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, c.queryError(ctx, step, err)
	}
	if len(results) == 0 {
		return nil, nil
	}
	return results[len(results)-1].Rows, nil
}

// queryError classifies an error of a statement.
func (c *connection) queryError(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", step, context.Cause(ctx))
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return serverProblem(step, pg)
	}
	return &cdc.Problem{What: step + ": the connection to Postgres at " + c.host + " broke", Why: c.scrub(err.Error()), Fix: "check the server's log and the network; the relay reconnects by itself"}
}

// text runs a statement that returns one value.
func (c *connection) text(ctx context.Context, step, sql string) (string, error) {
	rows, err := c.query(ctx, step, sql)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return "", fmt.Errorf("%s: want one value, got %d rows", step, len(rows))
	}
	return string(rows[0][0]), nil
}

func (c *connection) usable() bool { return c != nil && !c.pg.IsClosed() }

// close ends the session at once; the server notices by itself.
func (c *connection) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.pg.Close(ctx) // the connection is gone either way
}

// quoteLiteral writes a string constant that means the same with
// standard_conforming_strings on and off.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteTable quotes both parts of schema.table.
func quoteTable(table string) string {
	schema, name, _ := strings.Cut(table, ".")
	return quoteIdentifier(schema) + "." + quoteIdentifier(name)
}
