// Command notifier tells payment events in a Slack channel.
//
// This package is wiring: configuration, the admin port, exit codes. What it
// does is in package notifier.
//
//	main.go      process entry: signals, exit codes
//	root.go      the command tree
//	config.go    the configuration as one struct; its tags are the schema
//	settings.go  file and environment into that struct
//	run.go migrate.go message.go dlq.go version.go    the commands
//	admin.go     /metrics, /livez, /readyz
//
// Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
// configuration, 5 needs a person, 130 second Ctrl-C.
package main
