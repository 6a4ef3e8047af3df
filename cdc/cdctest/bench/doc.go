// Command bench measures the relay on one machine and prints a table: how fast
// it drains a backlog, beside a loop that only receives, and how long a row
// takes from its COMMIT to a read_committed consumer.
//
// It starts PostgreSQL (found on the machine, or embedded) and an Apache Kafka
// of one node on loopback, builds cdc-relay, and runs it as users do: exactly
// once, acks=all, twelve partitions, no compression, a payload of 272 bytes of
// jsonb. Every run drains a slot of its own that was made before the backlog,
// so that all runs see the same one.
//
// All sides share the processors. CPU seconds per million rows therefore say
// more than rows per second, and neither transfers to other machines. It does
// not compare with other products.
//
//	bench [-rows N] [-runs N] [-latency D] [-o text|json]
package main
