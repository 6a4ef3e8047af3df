// Package simulation drives the real step function of the relay (cdc.Relay)
// through random histories of a simulated Postgres, a simulated Kafka and one
// or two replicas, and checks after every step what docs/delivery.md promises.
// Everything happens in memory and follows from a seed: a failure is replayed,
// shrunk and told step by step.
//
// # The model
//
//   - Postgres: a WAL of transactions with and without outbox rows; a slot whose
//     confirmed_flush is in memory, on disk, and on a standby; a walsender that
//     starts at confirmed_flush and sends into a bounded buffer; statuses that
//     come late; crash, fast shutdown, failover with and without the newest
//     transactions (whose LSNs and xids are used again), a restored older copy on
//     the same timeline, an altered publication, a slot advanced or dropped by
//     somebody; ids of transactions that commit in another order than they were
//     given out, and what the guard's looks tell of those that have ended. What
//     the client reads after the server dropped it still lies in the buffer, as it
//     does for a process that was paused.
//   - Kafka: a transaction coordinator for each transactional id with epochs,
//     under transactions v1 and v2; requests that come late, twice or never, and
//     answers that are lost; markers written partition by partition; the last
//     stable offset and what read_committed consumers see.
//   - The publisher: a stand-in that follows the protocol of package cdc/kafka
//     request by request (fence, prove the read complete, one transaction at a
//     time, an outcome that is not known is read).
//   - Replicas: the real Relay, a worker with one action at a time, kill -9,
//     pause and resume, orderly stop. A replica that has halted may be started
//     again; then it has to halt again.
//
// A schedule draws its plan first: which faults occur, how often, the limits of
// a batch, the versions of both servers. Then 300 events happen in random
// order. Then faults stop, and everything must become visible.
//
// # The checks
//
// The constants of type Check name them and say what each demands. S, the
// sequence that consumers must see, is what the server's history has; rows of
// an abandoned timeline are phantoms, which may be in Kafka only if nothing
// follows them.
//
// # Not modelled
//
// Rows that cannot be published and parking; at-least-once; resync and adopt;
// topics that are made again or grow; brokers that lose acknowledged writes, or
// that do not verify a producer's epoch before they append (before Kafka 3.6);
// rows that an altered publication leaves out; two servers that both take
// writes; the SQL and the wire formats. The adapters' own code is not run: that
// the stand-in's protocol is theirs is for their tests to show.
package simulation
