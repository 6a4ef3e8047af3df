package main

import (
	"fmt"
	"net/url"
	"time"
)

// way is how a reader reaches the database; the zero value is loopback TCP.
type way struct {
	socket    bool
	tls       bool // loopback TCP with TLS
	link      bool
	roundTrip time.Duration // of the link
}

// of names a reader that goes this way.
func (w way) of(reader string) string {
	switch {
	case w.socket:
		return reader + ", Unix socket"
	case w.tls:
		return reader + ", TLS"
	case w.link:
		return fmt.Sprintf("%s, %s away", reader, w.roundTrip)
	default:
		return reader
	}
}

// take makes the link as long as the way says.
func (b *bed) take(w way) {
	if w.link {
		b.link.over(w.roundTrip)
	}
}

// dsn is a connection string of the way.
func (b *bed) dsn(database string, w way) string {
	switch {
	case w.socket:
		return b.postgres.SocketDSN(database, "postgres")
	case w.tls:
		return b.postgres.TLSDSN(database, "postgres")
	case w.link:
		dsn := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: fmt.Sprintf("%s:%d", linkPeer, b.postgres.Port()), Path: "/" + database, RawQuery: "sslmode=disable"}
		return dsn.String()
	default:
		return b.postgres.DSN(database, "postgres")
	}
}
