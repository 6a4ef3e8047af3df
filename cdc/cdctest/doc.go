// Package cdctest gives tests the real servers that the relay speaks to: a
// PostgreSQL cluster, and a Kafka that is either the fake broker of franz-go in
// a process of its own or an Apache Kafka.
//
// Every package that uses it has one line in TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }
//
// Main is needed because the servers live under helper processes, which are the
// test binary itself, executed again with another role.
//
// It guarantees that
//   - a test never has to be skipped for want of a PostgreSQL: one is found on
//     the machine, or its binaries are fetched once and cached;
//   - it works as root too (PostgreSQL refuses root: it runs as an unprivileged
//     user) and without a home directory;
//   - no server outlives the test binary, however that ends: a helper stops its
//     server when the pipe from its parent closes;
//   - several test binaries may use it at the same time.
//
// Data is written without fsync: the servers survive crashes of their processes,
// not of the machine. Nothing here is for production. The types *Server know
// nothing of package testing, so that the demo can run the same servers.
package cdctest
