// Package cdc is the core of cdc-relay: it decides how the committed inserts
// of an outbox table get from the Postgres WAL into Kafka exactly once, in
// commit order. It knows values, rules and a step function, and imports nothing
// but the standard library; every side effect sits in an adapter.
//
//	WAL ─► slot ─► postgres.Stream ─┐                     ┌─► kafka.Publisher ─► topics
//	                decode          │                     │     one transaction   + position record
//	                                ▼                     │
//	                   Runner: goroutine R          Runner: worker P
//	                   owns the stream              owns the Kafka transaction
//	                                │   Input   Effects   │
//	                                └────► Relay.Step ────┘
//	                         pure: skip, route, batch, record, confirm, halt
//
// # Guarantees
//
// Let S be the outbox inserts of committed transactions ordered by (commit
// LSN, serial). In every partition, what read_committed consumers can see is
// at every moment a prefix of that partition's part of S, each row once. The
// slot is never acknowledged beyond what Kafka has recorded. When this can no
// longer be proved the relay halts with a reason and a way out.
//
// In mode at-least-once no row is lost either, but a restart repeats what the
// slot had not seen acknowledged; docs/delivery.md says what else that mode
// gives up. Its position records are the memory of one process and stay there.
//
// # Vocabulary
//
//	slot, publication, relation,    as in PostgreSQL's documentation
//	keepalive, timeline, system id
//	topic, partition, offset,       as in Kafka's
//	transaction, producer epoch,
//	last stable offset
//	outbox          the table
//	row             one insert into it as decoded from the WAL
//	record          what is produced to Kafka for one row
//	event           the business fact that row and record carry; its id is the row's id
//	commit LSN      where a transaction's commit record starts; known at BEGIN
//	end LSN         the byte after the commit record; the only value ever acknowledged
//	serial          1-based ordinal of a row among the outbox rows of its transaction
//	position        (generation, timeline, commit LSN, serial): where a row stands
//	position record the position of a batch's last row, in the same Kafka transaction
//	received LSN    end of what was read on this connection
//	recorded LSN    up to here nothing is owed and Kafka proves it
//	idle LSN        WAL end up to which the server had nothing for us
//	confirmed LSN   what was acknowledged to the slot
//	genesis         the first position record, written by init
//	batch           the rows of one Kafka transaction
//	active, standby the replica that holds the slot, one that waits for it
//	owed            received and not recorded
//	halt            stop for a person; a closed list of reasons
//	stalled         the same failure at the same position again and again
//	bad row         a row that cannot become a record by the rules
//
// # Invariants
//
//	confirmed <= recorded             Progress.nextConfirmed
//	confirmed <= received             Progress.nextConfirmed
//	skipped only by position          Relay.insert
//	witness before anything new       streaming.testify, begin, commit, keepalive
//	idle LSN outside BEGIN...COMMIT   Relay.keepalive
//	slot before transactional id      the order of phases in Relay.answer
//	facts after lease                 Stream.Facts follows Attach and Open
//
// # Reading order
//
// lsn.go, position.go, row.go, record.go, message.go (values); batch.go,
// progress.go, recovery.go (pure rules); step.go, relay.go, streaming.go,
// settle.go and ending.go (all decisions as one step function); ports.go (what
// adapters must do); run.go and worker.go (the thin shell).
package cdc
