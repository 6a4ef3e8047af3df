// Package halts runs the binary through every halt of the closed list, and
// through the everyday situations that must not be one. It has tests only.
//
// A case of TestHalts is what a careless person or a broken machine does to a
// relay with rows waiting: on a real PostgreSQL, and on the Kafka of
// cdctest.SharedKafka. Each demands exit code 5, a message with what, why and
// the way out, a slot and topics in which nothing has moved, a free slot, and
// the same halt at the next start, which shows it on /readyz and /metrics. Where
// a few words are the way out, they are spoken, and then every row has to have
// been delivered once and in order. TestEveryHaltIsProduced reads the closed
// list from the source, so that a new reason needs a case here.
//
//	reason               how it is caused
//	setup                topic never made; publication gone before the first row
//	position-missing     topic deleted, made anew; tombstone; unfinished init
//	slot-lost            dropped; of another plugin; max_slot_wal_keep_size, also
//	                     under a paused relay; idle_replication_slot_timeout
//	slot-moved           advanced; dropped and made again
//	server-behind        older copy
//	diverged             older copy that went on (other LSNs, the same LSNs, where
//	                     nothing was); failover that lost published rows
//	other-database       another server under the old address
//	other-kafka          another cluster with a copied position topic
//	topic-recreated      deleted and made again, also while running
//	stream-changed       publication or table dropped, altered, made again, taken
//	                     out, put back, renamed; mapped column dropped
//	mode-changed         record of at-least-once
//	hanging-transaction  foreign transaction on the position topic
//	bad-row              topic that is not allowed
//	stuck                rows from before the publication (PostgreSQL 14 to 17)
//	resync-unfinished    record of a resync
//
// Not repeated here: further bad rows and setups (cmd/cdc-relay,
// TestWhatNeedsAPerson, TestWrongWALLevel), a hanging transaction that several
// starts add up (cdc/kafka, TestOpenHaltsAtAHangingTransaction), PostgreSQL 18
// passing rows over (cdc/postgres, TestRowsFromBeforeThePublicationEndTheStream),
// the order of the findings (cdc, TestDecide).
//
// What must not halt: restarts, DDL that does not touch mapped columns,
// partitions that come and go, other configuration (TestEverydayChangesDoNotHalt,
// TestChangesInTheMiddleOfTransactions), a server that comes back changed
// (TestRestartWithOtherSettings), failovers that lost no row
// (TestFailoverDoesNotHalt, TestFailoverThatLostNothingOfOurs), sessions ended
// for being idle (TestIdleSessionsAreEnded). Upgrades by pg_upgrade halt, and go on
// by one command: TestMajorUpgrade, with the tag ops. Idle weeks pass in the script
// cdc/testdata/idle.txt, where the clock can be moved; crashes of the server are
// cdc/cdctest/ledger, TestPostgresCrashes.
package halts
