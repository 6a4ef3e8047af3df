// Command cdc-relay is the sidecar that reads committed outbox rows out of the
// Postgres WAL and writes them to Kafka exactly once, in commit order.
//
// This package is wiring: it reads the configuration, builds the Postgres and
// Kafka sides and the core, serves the admin port and turns errors into exit
// codes and text for people. It decides nothing about delivery.
//
//	main.go       process entry: signals, exit codes
//	root.go       the command tree and its common flags
//	config.go     the configuration as one struct; its tags are the only schema
//	schema.go     the table of settings made from that struct
//	configfile.go, configsources.go, configcheck.go    file, env and flags, validation
//	parts.go      configuration to the constructors of the parts
//	run.go init.go check.go status.go wait.go healthcheck.go version.go    one command each
//	genesis.go    what init does, in the order that is safe
//	admin.go      /metrics, probes, /status, /published
//
// Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
// configuration, 3 unhealthy or check failed, 5 needs a person, 130 second
// Ctrl-C.
package main
