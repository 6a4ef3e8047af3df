// Package notifier turns payment events into messages of a Slack channel.
//
//	payment-event ──poll──► queue per partition ──► inbox row "sending" ──► Slack ──► inbox row "sent" ──► offset committed
//	  read_committed                                       │
//	                                                       └─ what can never be a message ──► dead letter topic, inbox row "dead"
//
// # Guarantees
//
//   - An offset is committed only after its record was decided: delivered,
//     filtered, skipped, or written to the dead letter topic.
//   - Every event id becomes one message. Slack knows no idempotency key, so
//     there is one exception: an attempt whose outcome nobody knows (a timeout,
//     a crash between the post and its note in the inbox). With
//     RepeatAtLeastOnce such an event is posted again, marked "(possibly
//     repeated)"; with RepeatAtMostOnce it is given up.
//   - Messages of one partition, and so of one reservation, keep their order. A
//     destination that is away or refuses holds its records back; it never sends
//     them to the dead letters.
//   - Records of aborted transactions are never seen.
//
// # What it does not do
//
// It does not order across partitions (it takes the oldest record it knows
// first), gives no digest, and does not make the topic it reads. An event that is
// older than the maximum age when its turn comes is not posted but counted as
// filtered; after an outage that is longer than this, that is most of the queue.
//
//	notifier.go    what callers use: New, Run, Status
//	consumer.go    the group member: poll, queue, commit, rebalance
//	delivery.go    one record from claim to settled; the destination's pauses
//	inbox.go       the table that makes each event one message
//	slack.go       one post and what its answer means
//	message.go     payment to Block Kit; money.go formats the amount
//	deadletter.go  the dead letter topic: write, read; redrive.go: deliver again
//
// Package fakeslack beside it is a Slack for tests and demonstrations.
package notifier
