// Package audit compares rows of the outbox with the records in Kafka: which
// are missing, which are there twice, which came out of order, went elsewhere
// or were changed. The command audit, backfill, resync and the demo share it.
//
//	rows ──route──► entry ─┐ sort by event id          sort by key and offset
//	                       ├──────────────► join ────────────────► order
//	records ──────► entry ─┘  (on disk)      │          (on disk)
//	                                         └─► Report, Missing
//
// # What it guarantees
//
//   - The rows are those of one snapshot, so the truth does not move.
//   - A row is missing only if Config.Published said, after the snapshot, that
//     everything committed up to it is in Kafka, and the topics were then read to
//     their ends. Else a row without a record is pending.
//   - The order per key is judged by what Postgres knows and the relay does not
//     say: the commit timestamps where track_commit_timestamp is on, and the
//     command ids of rows of one transaction in any case. Commit timestamps are
//     taken just before the commit record gets its place, so two transactions that
//     commit at the same moment may have them the other way round; differences
//     within Config.OrderTolerance prove nothing and count for nothing. The
//     position headers, which the relay writes itself, are a weaker check with a
//     count of its own.
//   - Memory is bounded whatever the number of rows: entries of 64 bytes are
//     sorted in runs of Config.MemoryBytes, merged at most 64 at a time, in files
//     of Config.TempDir that have no name and so end with the process. The disk
//     needed is about 200 bytes for a row and its record.
//
// # What it does not do
//
// It cannot know of rows that are gone: a record without a row counts as a
// phantom only where its id is a UUIDv7 above the lowest row; below, the row may
// have been pruned. It needs ids that are UUIDs. It changes nothing.
package audit
