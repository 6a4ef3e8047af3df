// Command bench measures the relay on one machine and prints a table: how fast
// it drains a backlog, beside a loop that only receives and a relay whose
// publisher only counts; how long a row takes from its COMMIT to a
// read_committed consumer; what it costs when there is nothing to do; and how
// its work grows with backlog, topics, partitions and rows. With -debezium it
// measures Debezium in the same way.
//
// It starts PostgreSQL (found on the machine, or embedded) and an Apache Kafka
// of one node on loopback, builds cdc-relay, and runs it as users do: exactly
// once, acks=all, twelve partitions, no compression, a payload of 272 bytes of
// jsonb. Every run drains a slot of its own that was made before the backlog,
// so that all runs see the same one. In each run every reader comes once, one
// after the other, and each run begins with another reader. Figures are medians
// with the least and the most; ratios are made run by run, because what the
// machine does meanwhile concerns both sides.
//
// The broker runs with the options of Kafka's own start script, and is warmed up
// before anything is measured: a Java machine compiles what it runs often.
//
// Beside the latency of the relay at low rates stands that of Kafka alone: the same
// two records in the same transaction, without database and relay.
//
// All sides share the processors. CPU seconds per million rows therefore say
// more than rows per second, and neither transfers to other machines.
//
// Debezium runs in a standalone worker of Kafka Connect that Maven fetches, with
// the Outbox Event Router on the same outbox table, default and tuned (tunings
// in debezium.go). Where the two sides cannot be treated alike, Debezium is
// favoured:
//   - it is measured at least once, without transactions: a standalone worker
//     knows no exactly-once sources;
//   - its Java machine was warmed up under full load for a minute, and its time
//     counts from the moment at which its slot is in use, whereas the relay's
//     counts from the start of the process to its end;
//   - the time ends when the last record is in the log, not when a process has
//     confirmed it.
//
// Both go without TLS. Debezium's driver speaks TCP only; with -socket, -tls and
// -link the relay is measured over a Unix socket, over TLS, and over a network of
// two hosts at a distance (link_linux.go) too; for the last there need to be
// neither two hosts nor netem.
//
//	bench [-measure drain,latency,idle,growth] [-debezium] [-o text|json]
//	bench -h
package main
