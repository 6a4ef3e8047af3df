// Package e2e tests the programs together, as processes: payment-api, cdc-relay
// and notifier, on a real Postgres and on kfake or Apache Kafka, with a fake
// Slack at the end.
//
//	payments_test.go  payments over HTTP while every program is killed again and
//	                  again: one payment, one history row, one event, one message
//	compose_test.go   compose.yaml: what it must say, and the same commands with
//	                  the same environment started natively
//	stack_test.go     the programs with a database and topics of their own
//
// The truth is what Postgres holds in the end; records and messages are compared
// with it. The package has no code for others; fakeslack beside it is the Slack
// of compose.yaml.
//
// It does not test the protocol under faults of the servers: that is what
// package ledger does.
package e2e
