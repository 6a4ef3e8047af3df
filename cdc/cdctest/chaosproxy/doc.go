// Package chaosproxy is a network that fails on purpose, between a client and a
// PostgreSQL server or the brokers of a Kafka cluster.
//
// It understands where one message ends and the next begins, and what each is:
// a Kafka request by its API key, the answer to it, a standby status update, a
// keepalive, XLogData. Rules hold, delay, swallow, tear or cut at exactly those;
// a Link does the same to everything: it stops one direction or both, or makes
// them slow. Cut and HalfOpen end the connections that there are.
//
// What the proxy passes on is what came, byte for byte and in order, with one
// exception: the addresses of brokers in Kafka's answers become the proxy's own,
// because a client dials what it was told.
//
// It knows neither TLS nor SASL. A request for TLS by a PostgreSQL client is
// answered with no.
package chaosproxy
