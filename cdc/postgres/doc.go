// Package postgres speaks to PostgreSQL for the relay: it implements
// [cdc.Source] and [cdc.Stream], and holds what checks, monitoring and init need
// to know about the server.
//
// What is where:
//
//	dsn.go      the connection string: nothing from the environment, no secret in errors
//	connection.go  one session with pinned settings; simple protocol only
//	source.go   Inspect and Attach
//	look.go     the one look over SQL that facts, checks and the guard share
//	stream.go   the replication connection; reader.go and pace.go how its socket is read,
//	            received.go what comes, decode.go pgoutput to cdc.Message
//	facts.go    the facts that decide, read while the slot is ours
//	guard.go    watches publication and table while streaming
//	monitor.go  slot statistics; checks.go findings for people; setup.go what init makes
//	outboxscan.go  the rows themselves, for audit and backfill; outboxprune.go and
//	            outboxdelete.go remove old ones
//	errors.go   SQLSTATE to *cdc.Problem
//
// It guarantees that
//   - nothing is acknowledged but what Status was given, with write, flush and
//     apply alike;
//   - a notice that rows are being passed over, a changed publication or a
//     changed table ends the stream before anything after it is returned;
//   - every byte of a message is accounted for: what cannot be decoded exactly is
//     an error, never a guess;
//   - errors carry no password.
//
// To stream it needs a role with LOGIN, REPLICATION and CONNECT; it reads catalogs
// only and never a table. [OutboxScan] needs SELECT on the outbox, [Admin.Prune]
// its owner's rights. It does not decide whether to stream, knows nothing of positions,
// and never makes or moves a slot by itself.
package postgres
