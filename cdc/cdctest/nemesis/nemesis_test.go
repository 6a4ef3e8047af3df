package nemesis

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// The variables that `make chaos` sets.
const (
	durationVariable = "CDC_CHAOS_DURATION"
	brokerVariable   = "CDC_CHAOS_BROKER" // apache: as where KAFKA_BROKERS is set
)

// Without a variable a run is as long as `make test` and `make test-kafka` have
// time for.
const (
	shortDuration = 20 * time.Second
	realDuration  = 60 * time.Second
)

// fullDuration is enough for every kind of fault to come three times.
const fullDuration = 10 * time.Minute

// minCount is how often each kind comes in a run of fullDuration.
const minCount = 3

func duration(t *testing.T) time.Duration {
	t.Helper()
	value := os.Getenv(durationVariable)
	switch {
	case value != "":
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatalf("%s: %v", durationVariable, err)
		}
		return d
	case real():
		return realDuration
	default:
		return shortDuration
	}
}

// real says whether the broker is an Apache Kafka. The one in KAFKA_BROKERS is
// not ours to stop, but says that there may be another.
func real() bool {
	return os.Getenv(cdctest.BrokersVariable) != "" || os.Getenv(brokerVariable) == "apache"
}

// servers are the test's own.
func servers(t *testing.T) (*cdctest.Postgres, *cdctest.Kafka) {
	t.Helper()
	major := 0
	if value := os.Getenv(cdctest.MajorVariable); value != "" {
		var err error
		if major, err = strconv.Atoi(value); err != nil {
			t.Fatalf("%s: %v", cdctest.MajorVariable, err)
		}
	}
	postgres := cdctest.StartPostgres(t, cdctest.PostgresConfig{Major: major, Settings: Settings()})
	if real() {
		return postgres, cdctest.StartApacheKafka(t)
	}
	return postgres, cdctest.StartKafka(t)
}

func TestNemesis(t *testing.T) {
	t.Parallel()
	cfg := Config{Duration: duration(t), Seed: cdctest.Seed(t)}
	if cfg.Duration >= fullDuration {
		cfg.AtLeast = minCount
	}
	cfg.Postgres, cfg.Kafka = servers(t)
	// Linking another package time compiles everything once more, which takes
	// longer than the short run.
	if cfg.Clock = cfg.Duration > shortDuration; cfg.Clock {
		cfg.Binary = BuildWithClock(t)
	} else {
		cfg.Binary = relaytest.Build(t)
	}
	t.Logf("PostgreSQL %d, %s", cfg.Postgres.Major(), cfg.Duration)
	result := Run(t, cfg)
	if err := result.Report.Err(); err != nil {
		t.Fatal(err)
	}
	if result.Report.Rows < 1000 || result.Report.Batches == 0 || result.Prepared == 0 {
		t.Errorf("only %d rows in %d batches were checked, %d transactions were prepared", result.Report.Rows, result.Report.Batches, result.Prepared)
	}
	for kind, n := range result.Counts {
		if n < cfg.AtLeast {
			t.Errorf("%s came %d times in %s, want %d", kind, n, cfg.Duration, cfg.AtLeast)
		}
	}
}

// TestNemesisCatchesANaiveRelay breaks the relay on purpose: faults that it
// survives would prove nothing about a sound one.
func TestNemesisCatchesANaiveRelay(t *testing.T) {
	t.Parallel()
	const file = "cdc/streaming.go"
	naive := map[string]string{file: relaytest.ReplaceOnce(t, file,
		"\ts.record.RecordedLSN = resume.RecordedLSN\n",
		"\ts.record.RecordedLSN, s.resume, s.witness = 0, Resume{}, nil\n")}
	cfg := Config{
		Binary: relaytest.BuildOverlay(t, naive), Duration: 5 * time.Second, AtLeast: 1, Seed: cdctest.Seed(t),
		Only: []string{"relay kill -9", "postgres crash", "EndTxn answer lost"},
	}
	cfg.Postgres, cfg.Kafka = cdctest.StartPostgres(t, cdctest.PostgresConfig{Settings: Settings()}), cdctest.StartKafka(t)
	report := Run(t, cfg).Report
	if report.Count(ledger.Duplicate) == 0 {
		t.Fatalf("the nemesis shows no %s: %s", ledger.Duplicate, &report)
	}
	if kinds := report.Kinds(); slices.Contains(kinds, ledger.Loss) {
		t.Errorf("the ledger shows %v, and nothing that is broken loses", kinds)
	}
}
