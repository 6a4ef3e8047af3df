package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// minimal is the shortest valid configuration.
const minimal = `relay: payments
postgres: {dsn_file: /run/secrets/dsn}
kafka: {brokers: [kafka:9092]}
routing: {allowed_topics: [payment-event]}
`

func load(t *testing.T, file string, env, set []string) (*loadedConfig, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(configInput{file: path, env: env, set: set})
}

func TestMinimalConfigTakesDefaults(t *testing.T) {
	c, err := load(t, minimal, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Relay: "payments",
		Postgres: PostgresConfig{
			DSNFile: "/run/secrets/dsn", Slot: "payments_outbox", Publication: "payments_outbox", Table: "public.outbox",
		},
		Kafka: KafkaConfig{
			Brokers: []string{"kafka:9092"}, TransactionalIDPrefix: "cdc-relay.payments", PositionTopic: "cdc-relay.position.payments",
			TransactionTimeout: 15 * time.Second, TransactionRing: 2, Compression: "none", Partitions: 12, Replication: 3,
		},
		Delivery: "exactly-once",
		Routing: RoutingConfig{
			Format: "cloudevents", Source: "/payments", Topic: "{aggregatetype}-event", Key: "{aggregateid}",
			AllowedTopics: []string{"payment-event"}, Timestamp: "commit",
		},
		OnBadRow:     "halt",
		ParkedTopic:  "cdc-relay.parked.payments",
		Batch:        BatchConfig{MaxRows: 2000, MaxBytes: 1 << 20, MaxPartitions: 500},
		DrainTimeout: 20 * time.Second,
		Admin:        AdminConfig{Listen: "127.0.0.1:9790"},
		Log:          LogConfig{Level: "info", Format: "auto"},
	}
	if diff := cmp.Diff(want, c.Config); diff != "" {
		t.Error(diff)
	}
	if len(c.warnings) > 0 {
		t.Errorf("warnings: %q", c.warnings)
	}
}

func TestPrecedenceIsFlagsEnvFileDefaults(t *testing.T) {
	file := minimal + "drain_timeout: 1s\nlog: {level: warn}\nbatch: {max_bytes: 1MiB}\n"
	env := []string{"CDC_RELAY_DRAIN_TIMEOUT=2s", "CDC_RELAY_LOG_LEVEL=error", "CDC_RELAY_KAFKA_COMPRESSION="}
	c, err := load(t, file, env, []string{"drain_timeout=3s"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"drain_timeout":     "3s --set",
		"log.level":         "error env CDC_RELAY_LOG_LEVEL",
		"batch.max_bytes":   "1MiB relay.yaml:7",
		"kafka.compression": "none default", // an empty variable is not set
	} {
		s := c.setting(path)
		if got := s.text() + " " + s.origin.text; got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestEveryKindOfValueFromEnvAndFlags(t *testing.T) {
	env := []string{
		"CDC_RELAY_KAFKA_BROKERS=a:1, b:2", "CDC_RELAY_ADMIN_PPROF=true", "CDC_RELAY_BATCH_MAX_BYTES=512KiB",
		"CDC_RELAY_POSTGRES_COLUMNS={id: event_id, payload: body}",
	}
	set := []string{"routing.allowed_topics=[x, y-*]", "postgres.columns.type=kind", "kafka.partitions=7"}
	c, err := load(t, minimal, env, set)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.Kafka.Brokers, c.Admin.Pprof, c.Batch.MaxBytes, c.Postgres.Columns, c.Routing.AllowedTopics, c.Kafka.Partitions)
	want := "[a:1 b:2] true 512KiB map[id:event_id payload:body type:kind] [x y-*] 7"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestConfigProblems(t *testing.T) {
	tests := []struct {
		name string
		file string
		env  []string
		set  []string
		want []string // each has to be in the error
	}{
		{name: "unknown key", file: minimal + "drain_timeuot: 1s\n", want: []string{"relay.yaml:5: drain_timeuot: unknown key; did you mean drain_timeout?", "    5 | drain_timeuot: …"}},
		{name: "unknown key in a group", file: strings.Replace(minimal, "dsn_file: /run/secrets/dsn", "dsn_file: /run/secrets/dsn, slott: x", 1), want: []string{"relay.yaml:2: postgres.slott: unknown key; did you mean slot?", "    2 | slott: …"}},
		{name: "known key in the wrong group", file: minimal + "table: public.x\n", want: []string{"relay.yaml:5: table: unknown key; did you mean postgres.table?"}},
		{name: "nothing similar", file: minimal + "zzzzzz: 1\n", want: []string{"relay.yaml:5: zzzzzz: unknown key\n"}},
		{name: "duration without unit", file: minimal + "drain_timeout: 10\n", want: []string{`relay.yaml:5: drain_timeout: "10" is no duration`, "    5 | drain_timeout: 10"}},
		{name: "size without unit", file: minimal + "batch: {max_bytes: 10}\n", want: []string{`relay.yaml:5: batch.max_bytes: "10" is no size`}},
		{name: "number out of range", file: minimal + "batch:\n  max_rows: 0\n", want: []string{"relay.yaml:6: batch.max_rows: 0 is out of range: want 1 to 1000000"}},
		{name: "duration out of range", file: minimal + "drain_timeout: 11m\n", want: []string{"drain_timeout: 11m is out of range: want 1s to 10m"}},
		{name: "no number", file: minimal + "batch: {max_rows: many}\n", want: []string{`batch.max_rows: "many" is no whole number`}},
		{name: "no boolean", file: minimal + "admin: {pprof: yes}\n", want: []string{`admin.pprof: "yes" is neither true nor false`}},
		{name: "word not in the list", file: minimal + "log: {level: inof}\n", want: []string{`log.level: "inof" is not one of debug, info, warn, error; did you mean info?`}},
		{name: "mode that is not supported", file: minimal + "delivery: at-most-once\n", want: []string{`delivery: "at-most-once" is not one of exactly-once, at-least-once`}},
		{name: "policy that is not supported", file: minimal + "on_bad_row: skip\n", want: []string{`on_bad_row: "skip" is not one of halt, park`}},
		{name: "list where a value is wanted", file: minimal + "drain_timeout: [1s]\n", want: []string{"drain_timeout: want one value"}},
		{name: "value where a list is wanted", file: strings.Replace(minimal, "[kafka:9092]", "kafka:9092", 1), want: []string{"kafka.brokers: want a list"}},
		{name: "value where a group is wanted", file: minimal + "log: info\n", want: []string{"relay.yaml:5: log: want a mapping", "    5 | log: …"}},
		{name: "key set twice", file: minimal + "relay: x\n", want: []string{"relay.yaml:5: relay: set twice, first on line 1"}},
		{name: "syntax", file: minimal + "log: {level: info\n", want: []string{"relay.yaml:6: not valid YAML"}},
		{name: "two documents", file: minimal + "---\nrelay: x\n", want: []string{"want one document"}},
		{name: "no mapping at all", file: "- a\n", want: []string{"want a mapping"}},
		{name: "nothing set", file: "# nothing\n", want: []string{
			"relay: not set", "postgres.dsn_file: not set", "kafka.brokers: not set", "routing.allowed_topics: not set",
			"CDC_RELAY_RELAY", "--set kafka.brokers=...",
		}},
		{name: "relay name", file: strings.Replace(minimal, "payments", "Payments!", 1), want: []string{`relay.yaml:1: relay: "Payments!" is no relay name`}},
		{name: "slot name", file: strings.Replace(minimal, "dsn_file:", "slot: a-b, dsn_file:", 1), want: []string{`relay.yaml:2: postgres.slot: "a-b" is no slot name`}},
		{name: "table without schema", file: strings.Replace(minimal, "dsn_file:", "table: outbox, dsn_file:", 1), want: []string{"did you mean public.outbox?"}},
		{name: "column role", file: strings.Replace(minimal, "dsn_file:", "columns: {aggregat_type: x}, dsn_file:", 1), want: []string{`"aggregat_type" is no column role`, "did you mean aggregatetype?"}},
		{name: "broker without port", file: strings.Replace(minimal, "kafka:9092", "kafka", 1), want: []string{`relay.yaml:3: kafka.brokers: "kafka" is not host:port`}},
		{name: "secret and file together", file: strings.Replace(minimal, "dsn_file:", "dsn: x, dsn_file:", 1), want: []string{"postgres.dsn_file: set together with postgres.dsn"}},
		{name: "password without mechanism", file: strings.Replace(minimal, "brokers:", "sasl: {username: u}, brokers:", 1), want: []string{"kafka.sasl.mechanism: not set, although user or password is"}},
		{name: "mechanism without user and password", file: strings.Replace(minimal, "brokers:", "sasl: {mechanism: SCRAM-SHA-512}, brokers:", 1), want: []string{"kafka.sasl.username: not set", "kafka.sasl.password_file: not set"}},
		{name: "PLAIN without TLS", file: strings.Replace(minimal, "brokers:", "sasl: {mechanism: PLAIN, username: u, password: p}, brokers:", 1), want: []string{"PLAIN sends the password readable"}},
		{name: "certificate without key", file: strings.Replace(minimal, "brokers:", "tls: {cert_file: c}, brokers:", 1), want: []string{"kafka.tls.key_file: not set, although tls.cert_file is"}},
		{name: "admin address", file: minimal + "admin: {listen: here}\n", want: []string{`admin.listen: "here" is no address`}},
		{name: "pprof in the open", file: minimal + "admin: {listen: \":9790\", pprof: true}\n", want: []string{"admin.pprof: only with admin.listen on loopback"}},
		{name: "debezium options for another format", file: strings.Replace(minimal, "{allowed", "{debezium: {a: b}, allowed", 1), want: []string{"routing.debezium: only for format debezium"}},
		{name: "what only the router knows", file: strings.Replace(minimal, "{allowed", "{topic: \"{open\", allowed", 1), want: []string{"topic"}},
		{name: "environment", file: minimal, env: []string{"CDC_RELAY_BATCH_MAX_ROWS=x"}, want: []string{`env CDC_RELAY_BATCH_MAX_ROWS: batch.max_rows: "x" is no whole number`}},
		{name: "flag without value", file: minimal, set: []string{"relay"}, want: []string{`--set: "relay" is not path=value`}},
		{name: "flag with unknown path", file: minimal, set: []string{"kafka.brokes=a:1"}, want: []string{"--set: kafka.brokes: unknown setting; did you mean kafka.brokers?"}},
		{name: "secret in a flag", file: minimal, set: []string{"postgres.dsn=x"}, want: []string{"--set: postgres.dsn: arguments are visible to everybody"}},
		{
			name: "all at once, in the order of the lines",
			file: "relay: A\nkafka: {brokers: [x], tls: 1}\nbatch:\n  max_rows: 0\nlog: {levl: info}\n",
			want: []string{"7 problems", "relay.yaml:1: relay", "relay.yaml:2: kafka.tls", "relay.yaml:2: kafka.brokers", "relay.yaml:4: batch.max_rows", "relay.yaml:5: log.levl", "postgres.dsn_file: not set", "routing.allowed_topics: not set"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := load(t, test.file, test.env, test.set)
			problems, ok := errors.AsType[*configErrors](err)
			if !ok {
				t.Fatalf("got %v, want configErrors", err)
			}
			text := problems.Error() + "\n"
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("got:\n%s\nwant in it: %s", text, want)
				}
			}
			last := -1
			for _, want := range test.want {
				if at := strings.Index(text, want); test.name == "all at once, in the order of the lines" && at < last {
					t.Errorf("%q stands too early in:\n%s", want, text)
				} else {
					last = at
				}
			}
		})
	}
}

func TestMissingFileIsAConfigProblem(t *testing.T) {
	_, err := loadConfig(configInput{file: filepath.Join(t.TempDir(), "none.yaml")})
	if err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestSecretAndFileAreOneSetting(t *testing.T) {
	c, err := load(t, minimal, []string{"CDC_RELAY_POSTGRES_DSN=postgres://from-env"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Postgres.DSN != "postgres://from-env" || c.Postgres.DSNFile != "" {
		t.Errorf("env over file: got %q and file %q", string(c.Postgres.DSN), c.Postgres.DSNFile)
	}
	c, err = load(t, strings.Replace(minimal, "dsn_file: /run/secrets/dsn", "dsn: postgres://from-file", 1), nil, []string{"postgres.dsn_file=/x"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Postgres.DSN != "" || c.Postgres.DSNFile != "/x" {
		t.Errorf("flag over file: got %q and file %q", string(c.Postgres.DSN), c.Postgres.DSNFile)
	}
}

func TestUnknownEnvWarnsWithSuggestion(t *testing.T) {
	env := []string{
		"CDC_RELAY_KAFKA_BROKRES=secret-looking", "CDC_RELAY_FAILPOINT=x", "CDC_RELAY_CONFIG=y", "OTHER=1",
		"CDC_RELAY_SERVICE_HOST=10.0.0.1", "CDC_RELAY_PORT=tcp://10.0.0.1:9790", "CDC_RELAY_PORT_9790_TCP_ADDR=10.0.0.1",
	}
	c, err := load(t, minimal, env, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"environment variable CDC_RELAY_KAFKA_BROKRES names no setting and is ignored; did you mean CDC_RELAY_KAFKA_BROKERS?"}
	if diff := cmp.Diff(want, c.warnings); diff != "" {
		t.Error(diff)
	}
}

func TestSecretIsMaskedEverywhere(t *testing.T) {
	s := Secret("canary")
	marshalled, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s)
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%+v", PostgresConfig{DSN: s}),
		fmt.Sprintf("%#v", PostgresConfig{DSN: s}), string(marshalled), log.String(),
	} {
		if strings.Contains(text, "canary") || !strings.Contains(text, masked) {
			t.Errorf("printed as %s", text)
		}
	}
	if Secret("").String() != "" {
		t.Error("no secret is masked as if there were one")
	}
}

func TestExampleIsValidAndHasEverySetting(t *testing.T) {
	var b strings.Builder
	writeExample(&b)
	if _, err := load(t, b.String(), nil, nil); err != nil {
		t.Fatal(err)
	}
	// With every default uncommented it says the same as the defaults do.
	var full strings.Builder
	for line := range strings.Lines(b.String()) {
		if trimmed := strings.TrimLeft(line, " "); strings.HasPrefix(trimmed, "#") && !strings.HasPrefix(trimmed, "# ") {
			line = strings.Replace(line, "#", "", 1)
		}
		full.WriteString(line)
	}
	text := strings.Replace(full.String(), "mechanism: \"\"\n", "\n", 1) // empty is no mechanism's name
	c, err := load(t, text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	short, err := load(t, b.String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range short.settings {
		if got := c.settings[i]; got.text() != s.text() {
			t.Errorf("%s: %s in the example, default %s", s.path, got.text(), s.text())
		} else if got.origin.rank != rankFile && got.path != "kafka.sasl.mechanism" {
			t.Errorf("%s is not in the example", s.path)
		}
	}
}

func TestEverySettingIsDocumentedAndNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	c := &loadedConfig{}
	c.settings = settingsOf(&c.Config)
	for _, s := range c.settings {
		if s.doc == "" || !strings.HasSuffix(s.doc, ".") {
			t.Errorf("%s: doc %q is no sentence", s.path, s.doc)
		}
		for _, name := range []string{s.path, s.env()} {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		if s.secret() {
			c.setting(s.path + "_file") // panics where there is none
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0B": 0, "10B": 10, "1kB": 1000, "1KiB": 1024, "4MiB": 4 << 20, "2 MB": 2e6, "1GiB": 1 << 30, "3GB": 3e9} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "4", "MiB", "-1MiB", "1.5MiB", "4mib", "99999999999999999999B", "9999999999GiB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%s: got %d, want an error", text, got)
		}
	}
	for size, want := range map[Size]string{4 << 20: "4MiB", 1536: "1536B", 1 << 30: "1GiB", 1000: "1000B", 0: "0B"} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %s, want %s", int64(size), got, want)
		}
	}
}

func TestSuggestion(t *testing.T) {
	candidates := []string{"slot", "table", "publication", "tls"}
	for written, want := range map[string]string{
		"slott": "; did you mean slot?", "Slot": "; did you mean slot?", "talbe": "; did you mean table?",
		"publicaton": "; did you mean publication?", "dns": "", "x": "", "completely": "",
	} {
		if got := suggestion(written, candidates); got != want {
			t.Errorf("%s: got %q, want %q", written, got, want)
		}
	}
}

func TestSecretReaderReadsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsn")
	read := secretReader("postgres.dsn_file", "", path)
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "postgres.dsn_file") {
		t.Errorf("missing file: got %v", err)
	}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(" "+want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: got %v", err)
	}
}
