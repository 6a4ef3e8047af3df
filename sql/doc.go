// Package sql holds the numbered migrations of the outbox as files that psql or
// any migration tool can run, and renders them for a table of another name.
//
// Every file may be run again without harm, runs on PostgreSQL 14 to 18, and
// contains no password. 001 makes the table, 002 the roles (superuser), 003 the
// publication (table owner). The replication slot is not made here: creating a
// slot is refused in a transaction that has written, and it must come last.
//
// The package opens no connection and runs nothing.
package sql
