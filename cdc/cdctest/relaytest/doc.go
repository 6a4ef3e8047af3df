// Package relaytest builds cdc-relay and runs it as a process, for tests that
// kill it, supervise it, or ask it over HTTP.
//
// An Environment is everything that one relay needs, made by `cdc-relay init`
// itself. A Process is one life of the relay; a Supervisor gives it one life
// after another, as an init system does. Both run any other Program too, for
// tests of the whole path. Nothing outlives the test.
//
// TestMain of a package that uses it is
//
//	func TestMain(m *testing.M) { os.Exit(relaytest.Main(m)) }
//
// because built binaries are shared by the tests of a package.
package relaytest
