//go:build linux

package endurance

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// TestEpochsWrap: since transaction.version 2 every transaction raises the
// producer's epoch, an int16. Where it ends, the broker answers EndTxn with
// another producer id (KIP-890). A life of the relay goes through that without
// noticing. In a long run it uses all epochs itself, on an Apache Kafka; else they
// were used before.
func TestEpochsWrap(t *testing.T) {
	t.Parallel()
	const long = 40_000
	transactions := size(t, 300, 300, long)
	kafka := cdctest.SharedKafka(t)
	if transactions == long {
		// The broker's pause before it looks again whether a transaction's markers
		// are written is 20 ms, which would make the test last a quarter of an hour.
		kafka = cdctest.StartApacheKafkaWith(t, cdctest.ApacheKafkaConfig{
			Version: cdctest.Kafka4, TransactionVersion: 2, Properties: map[string]string{"add.partitions.to.txn.retry.backoff.ms": "1"},
		})
	}
	e := relaytest.NewEnvironment(t, relaytest.EnvironmentConfig{
		Postgres: cdctest.SharedPostgres(t), Kafka: kafka, Binary: relaytest.Build(t),
		Extra: "batch: {max_rows: 1}", TransactionRing: 1, // all transactions on the id that is used up
	})
	if transactions < long {
		began := time.Now()
		epoch := useEpochs(t, e, math.MaxInt16-transactions/2)
		t.Logf("the epoch was raised to %d in %s", epoch, time.Since(began).Round(time.Millisecond))
	}
	r := readTopic(t, e.Kafka, e.Topic, NewCensus(transactions))
	p := relaytest.Start(t, e.Options())
	p.WaitState(t, cdc.StateStreaming, 30*time.Second)
	began := time.Now()
	if _, err := e.Postgres.Connect(t, e.Database).Exec(t.Context(), insertRowsSQL, e.Topic, 1, transactions); err != nil {
		t.Fatal(err)
	}
	r.wait(t, transactions, time.Minute)
	t.Logf("%d transactions in %s, peak RSS %s", transactions, time.Since(began).Round(time.Millisecond), mib(peakRSS(t, p.PID())))
	starts := metric(t, p, "cdc_relay_state_changes_total", `state="streaming"`)
	if code := p.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d, want 0", code)
	}
	r.finish(t, e.Kafka, e.Topic)
	if starts != 1 {
		t.Errorf("streaming began %d times, want once", starts)
	}
	ids := r.producers()
	t.Logf("largest epochs by producer id: %v", ids)
	if len(ids) != 2 || slices.Max(slices.Collect(maps.Values(ids))) < math.MaxInt16-2 {
		t.Errorf("largest epochs by producer id: %v; want two ids, one of them used up", ids)
	}
}

// useEpochs raises the epoch of the relay's transactional id, as so many starts
// would.
func useEpochs(t *testing.T, e *relaytest.Environment, upTo int) int16 {
	t.Helper()
	client := e.Kafka.Client(t)
	request := kmsg.NewPtrInitProducerIDRequest()
	request.TransactionalID = kmsg.StringPtr("cdc-relay." + e.Relay + ".0")
	request.TransactionTimeoutMillis = 15_000
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for {
		response, err := request.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(response.ErrorCode)
		}
		switch {
		case errors.Is(err, kerr.ConcurrentTransactions):
			continue // the id's last transaction is not finished
		case err != nil:
			t.Fatal(err)
		case int(response.ProducerEpoch) >= upTo:
			return response.ProducerEpoch
		}
	}
}
