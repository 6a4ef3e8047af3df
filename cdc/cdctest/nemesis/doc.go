// Package nemesis lets everything fail at random under one relay, and demands
// that nothing of it shows.
//
//	                       ┌─ relay A ─┐
//	writers ─► Postgres ─proxy         proxy─► Kafka ─► observer
//	              ▲        └─ relay B ─┘         ▲
//	              └──────────── nemesis ─────────┘
//
// Two replicas under supervisors share one slot. The ledger writes, watches and
// judges; the nemesis draws one fault after another from a shuffled deck, so
// that every kind comes equally often, and measures after each how long it
// takes until an event is seen that was committed when the fault was over (for
// a killed process: when it was killed). Now and then the next fault does not
// wait for that.
//
// The seed decides the load, the order of the faults and how long each lasts.
// When they happen depends on the machine: a seed repeats a run as far as a run
// of processes on a network can be repeated.
//
// A cluster is needed that can be stopped: the nemesis starts its own. A broker
// is killed only while no transaction is being ended or fenced, see breakBroker.
package nemesis
