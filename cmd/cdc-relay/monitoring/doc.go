// Package monitoring holds the Grafana dashboards and Prometheus rules of
// cdc-relay, so that a binary carries those that fit its metrics.
//
// Its tests guarantee that dashboards and rules name only metrics that exist,
// that each alert has a runbook and a test of its own, and (tag ops) that every
// panel shows data on a live Prometheus. It does not install anything.
package monitoring
