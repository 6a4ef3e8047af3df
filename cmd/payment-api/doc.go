// Command payment-api serves the payment service over HTTP and makes its tables.
//
//	payment-api [serve]          serve the API and the admin port until stopped
//	payment-api migrate up       make or update the tables, the outbox and the roles
//	payment-api migrate status   what is made and what is not
//	payment-api version
//
// This package is wiring: settings, servers, signals, exit codes. What is done
// is in package payment. It links no Kafka client; a test says so.
//
// Exit codes: 0 fine, 1 a failure that a restart may cure, 2 usage or
// configuration, 3 migrations are pending, 5 needs a person, 130 second Ctrl-C.
package main
