// Package ledger proves a run of the relay exact, or shows where it was not.
//
// Writers commit, roll back and lose connections on purpose; every row carries
// its key, a gap-free number within the key and the fate that it should have.
// A read_committed consumer writes down what it sees while the faults happen.
// The truth comes from the outbox table, which nobody cleans, and from a second
// slot with another output plugin, so that no line of the relay takes part in
// judging it. Check compares the two.
//
//	Writers ──► Postgres ──► relay under faults ──► Kafka ──► Observer
//	                │                                             │
//	                └── table + test_decoding slot ──► Truth ──► Check ──► Report
//
// Check is a pure function over a History. Its own tests break correct
// histories in one place and demand that the violation is named: a checker that
// was never seen red proves nothing.
//
// The ledger does not inject faults; tests do. It assumes one topic, one relay,
// the record format cloudevents, and that nobody deletes from the outbox.
package ledger
