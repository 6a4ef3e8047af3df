package cdc

import "fmt"

// Ways out: the commands that end a halt, as its text names them. Each shows
// what it will do, and does it with --confirm. docs/recovery.md has all of them.
const (
	// FixResync ends every halt in which nothing else tells what is in Kafka.
	FixResync = "cdc-relay resync --confirm"
	// FixMissing is for what the stream has passed over, once the relay runs again.
	FixMissing = "cdc-relay audit finds and cdc-relay backfill publishes what is missing"
	// FixStream ends stream-changed.
	FixStream = "cdc-relay adopt --stream --confirm, and start again; then " + FixMissing
)

// FixPass is how a point of the WAL is passed that cannot be decoded.
func FixPass(slot string) string {
	return fmt.Sprintf("to pass the point: SELECT pg_replication_slot_advance('%s', pg_current_wal_lsn()), cdc-relay adopt --from-slot --confirm, and start again; then %s", slot, FixMissing)
}

// fixAtLeastOnce is the way out where no position counts and no command can
// change it: what stands in the position topic is of another time.
func fixAtLeastOnce(problem *Problem) string {
	const forget = "delete the position topic, which is of another time, and start again; then " + FixMissing
	switch problem.Reason {
	case HaltOtherDatabase:
		return "point postgres.dsn at the recorded server; if this one has replaced it: " + forget
	case HaltOtherKafka:
		return "point kafka.brokers at the recorded cluster; if this one has replaced it: " + forget
	case HaltTopicRecreated:
		return forget
	case HaltResyncUnfinished:
		return "finish it with delivery: exactly-once: " + FixResync
	}
	return problem.Fix
}
