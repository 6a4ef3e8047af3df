// Command demo runs the whole path on one machine and shows it live: a REST
// request, its row in the outbox, the record in Kafka, the message in Slack.
//
//	go run ./cmd/demo                          until q or Ctrl-C
//	go run ./cmd/demo --duration 20s --check   injects faults, audits, exit 0 only if clean
//
// PostgreSQL and a fake Kafka broker are those of the tests (package cdctest).
// payment-api, cdc-relay and notifier are built and run as processes of their
// own, so that kill -9 is a real one; each is started again when it ends. Slack
// is a fake inside this process.
//
// The audit is that of the command cdc-relay audit (package cdc/audit): the rows
// of a snapshot of the outbox table, routed anew, against what a read_committed
// consumer reads of the topic: id, place, key, headers and value. The order of
// the payments of a reservation is judged by the server's commit timestamps,
// exactly, because payment-api locks the reservation; that of a whole partition
// only by the relay's own positions. The same snapshot is held against what the
// API answered and what Slack got.
//
// It does not measure performance: broker and database keep nothing durable,
// and everything shares one machine.
//
// Exit codes: 0 fine, 1 a part did not work, 2 usage, 4 the audit found a
// difference or --check was not fulfilled.
package main
