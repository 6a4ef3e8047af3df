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
// The audit trusts nobody on the path. What was committed is read from the
// outbox table and a slot with the plugin test_decoding; what was delivered is
// read by a read_committed consumer and matched by the payment id in the value.
// The relay's own headers are shown and checked, and never believed.
//
// It does not measure performance: broker and database keep nothing durable,
// and everything shares one machine.
//
// Exit codes: 0 fine, 1 a part did not work, 2 usage, 4 the audit found a
// difference or --check was not fulfilled.
package main
