// Package endurance measures what a relay needs and how soon it is back: memory
// while a database transaction is larger than any batch, goroutines and
// descriptors over many reconnects, producer epochs that run out, a row as large
// as a request may be, a full disk, and the times of takeover and shutdown.
//
// Its tests run the real binary on real servers, print what they measured, and
// demand an exact result each time. Where a run is too large for the ledger, a
// Census judges it: one pass over the topic, a bit per row. They read /proc and
// are for Linux only. Bounds of time are meant for a machine that has time: where
// work takes twice as long as alone, they grow with that, and the test says so.
//
// `go test` takes sizes that fit into half a minute. Against a real broker they
// are larger, and with CDC_CHAOS=1 those of a long run. The build tag chaos adds
// the test that has to be root.
package endurance
