// Package kafka is the Kafka side of the relay: it implements cdc.Sink and
// cdc.Publisher on franz-go.
//
//	Sink.Advise   newest position record, nobody fenced
//	Sink.Open     fence every transactional id -> read the position topic to a
//	              proved end -> facts of the pinned topics -> Publisher
//	Publisher     Begin -> records in order -> pins -> position record ->
//	              Flush -> every promise nil? -> EndTxn(commit)
//
// In mode at-least-once Open fences nobody, but for the one time that it writes
// the mode into a position topic that exists, and a batch is an idempotent
// produce: records in order -> Flush -> every promise nil.
//
//	Reader        committed records of topics to a proved end, for audits
//	Backfiller    records beside the relay, in transactions of its own
//
// # Guarantees
//
//   - every promise: a transaction is committed only if the promise of each of
//     its records returned nil. franz-go itself would commit what succeeded.
//   - complete read: Open returns a position only after all ids that could still
//     commit are fenced, the last stable offset has reached the high watermark,
//     and reading forward has reached the offset before the high watermark. A
//     read that cannot be proved complete is an error, never a guess.
//   - unknown is read: any error of Publish drops every client. What became of
//     the transaction is for the next Open to read; nothing here infers it, and
//     nothing retries, aborts or continues on its own.
//   - named ids: a transactional id that the newest position record does not
//     name is used only after a record that names it was committed with an id
//     that the record does name. So whoever reads the record knows whom to fence.
//   - a record batch never exceeds its topic's max.message.bytes.
//
// # What it does not do
//
// It decides nothing about positions (package cdc does), it never creates the
// position topic by itself (init does, by EnsurePositionTopic), and it holds no
// goroutine beyond those of its Kafka clients, which end with Publisher.Close.
package kafka
