//go:build linux

package endurance

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// maxStreamingRSS bounds a relay whatever the database transaction: at most two
// batches of 10,000 rows or 4 MiB exist, and what a row of some hundred bytes
// costs on its way (values, record, headers, the client's copy) is below 2 KiB.
// That makes 40 MiB alive and twice that before the collector runs; as much again
// is for code, buffers, and a collector that runs late on a busy machine.
const maxStreamingRSS = 160 << 20

// TestHugeTransaction: one database transaction of far more rows than a batch
// takes, and the relay killed three times when Kafka has a part of it. The server
// sends it again from its beginning each time; every row comes once, in order,
// and the relay's memory does not grow with the transaction.
func TestHugeTransaction(t *testing.T) {
	t.Parallel()
	rows := size(t, 200_000, 500_000, 5_000_000)
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: cdctest.SharedKafka(t), Binary: relaytest.Build(t),
	})
	r := readTopic(t, e.Kafka, e.Topic, NewCensus(rows))
	began := time.Now()
	if _, err := e.Postgres.Connect(t, e.Database).Exec(t.Context(), insertRowsSQL, e.Topic, 1, rows); err != nil {
		t.Fatal(err)
	}
	t.Logf("inserted %d rows in one transaction in %s", rows, time.Since(began).Round(time.Millisecond))
	// The relay may be far ahead of the reader, so what is left is far more than
	// what it has seen.
	for life, upTo := range []int{rows / 10, rows / 5, rows * 2 / 5, rows} {
		began := time.Now()
		p := relaytest.Start(t, e.Options())
		r.wait(t, upTo, time.Minute)
		rss := peakRSS(t, p.PID())
		if upTo == rows {
			if code := p.Terminate(t); code != 0 {
				t.Errorf("SIGTERM ended the relay with exit code %d, want 0", code)
			}
		} else {
			p.Kill()
		}
		t.Logf("life %d: %s, at its end %d rows were visible, peak RSS %s", life+1, time.Since(began).Round(time.Millisecond), r.count(), mib(rss))
		if rss > maxStreamingRSS {
			t.Errorf("life %d took %s of memory, want at most %s", life+1, mib(rss), mib(maxStreamingRSS))
		}
		if upTo < rows && r.count() == rows {
			t.Fatalf("life %d was killed when it had finished", life+1)
		}
	}
	r.finish(t, e.Kafka, e.Topic)
	// The server may still be at the relay's last word.
	await(t, "the slot stands behind the commit of the transaction, at "+r.census.lsn.String(), 30*time.Second, func() bool {
		return confirmedLSN(t, e) > r.census.lsn
	})
}

// confirmedLSN is what the slot was told.
func confirmedLSN(t *testing.T, e *relaytest.Environment) cdc.LSN {
	t.Helper()
	var text string
	err := e.Postgres.Connect(t, e.Database).QueryRow(t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", e.Slot).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	confirmed, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return confirmed
}
