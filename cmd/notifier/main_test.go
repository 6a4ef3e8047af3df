package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

const (
	secret   = "canarysecret"
	patience = 30 * time.Second
)

// bed has everything that a notifier needs, and its configuration file.
type bed struct {
	t      *testing.T
	topic  string
	client *kgo.Client
	slack  *fakeslack.Server
	config string
	admin  string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	postgres, kafka := cdctest.SharedPostgres(t), cdctest.SharedKafka(t)
	b := &bed{t: t, topic: kafka.Topic(t, 2), client: kafka.Client(t), slack: &fakeslack.Server{}}
	server := httptest.NewServer(b.slack)
	t.Cleanup(server.Close)
	b.admin = cdctest.Address(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b.config = write("notifier.yaml", fmt.Sprintf(`
kafka:
  brokers: [%q]
  topic: %s
  group: g-%s
  dead_letter_topic: %s
  create_topics: true
  instance_id: pod-0
  replication: 1
postgres:
  dsn_file: %s
slack:
  webhook_url_file: %s
  interval: 0
admin: {listen: %q}
`, kafka.Brokers()[0], b.topic, b.topic, kafka.TopicName(t),
		write("dsn", postgres.DSN(postgres.Database(t), "postgres")), write("url", server.URL+"/services/"+secret+"\n"), b.admin))
	return b
}

// call runs one command line to its end.
func (b *bed) call(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	code = Main(append(args, "--config", b.config), strings.NewReader(""), &out, &errs, nil, make(chan os.Signal))
	if strings.Contains(errs.String()+out.String(), secret) {
		b.t.Errorf("%v shows the secret URL:\n%s%s", args, out.String(), errs.String())
	}
	return code, out.String(), errs.String()
}

func (b *bed) mustCall(args ...string) string {
	b.t.Helper()
	code, stdout, stderr := b.call(args...)
	if code != 0 {
		b.t.Fatalf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

func (b *bed) produce(n int) (ids []string) {
	b.t.Helper()
	for range n {
		eventType, payload, err := event.Encode(event.Payment{
			PaymentID: uuid.NewString(), ReservationID: uuid.NewString(), UserID: uuid.NewString(), Status: event.StatusFailed,
			FailureCode: event.FailureExpired, Amount: event.Amount{Value: 15000, Currency: "KRW"}, ExecutedAt: time.Now(),
		})
		if err != nil {
			b.t.Fatal(err)
		}
		id := uuid.NewString()
		ids = append(ids, id)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err = b.client.ProduceSync(ctx, &kgo.Record{Topic: b.topic, Value: payload, Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte(id)}, {Key: "ce_type", Value: []byte(eventType)},
		}}).FirstErr()
		cancel()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return ids
}

func (b *bed) messagesOf(id string) (n, noted int) {
	for _, m := range b.slack.Messages() {
		if strings.Contains(string(m.Body), id) {
			n++
			if strings.Contains(m.Text, "(possibly repeated)") {
				noted++
			}
		}
	}
	return n, noted
}

func (b *bed) get(path string) (int, string) {
	response, err := http.Get("http://" + b.admin + path)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTheWholeCommand(t *testing.T) {
	b := newBed(t)
	if code, _, stderr := b.call("run"); code != exitPerson || !strings.Contains(stderr, "fix: notifier migrate") {
		t.Errorf("run without an inbox: exit code %d\n%s", code, stderr)
	}
	b.mustCall("migrate")
	if b.mustCall("send-test"); len(b.slack.Messages()) != 1 {
		t.Errorf("got %d messages after send-test", len(b.slack.Messages()))
	}
	b.slack.Script(fakeslack.Answer{Status: 404, Body: "no_service"})
	if code, _, stderr := b.call("send-test"); code != exitFailure || !strings.Contains(stderr, "404 no_service") {
		t.Errorf("send-test to a missing webhook: exit code %d\n%s", code, stderr)
	}

	b.slack.Script(fakeslack.Answer{Status: 400, Body: "invalid_blocks"})
	ids := b.produce(3)
	signals, ended := make(chan os.Signal, 1), make(chan int, 1)
	var log bytes.Buffer
	go func() {
		ended <- Main([]string{"run", "-c", b.config}, nil, io.Discard, &log, nil, signals)
	}()
	until(t, "two delivered, one dead", func() bool {
		_, metrics := b.get("/metrics")
		return strings.Contains(metrics, `notifier_deliveries_total{destination="slack",outcome="delivered"} 2`) &&
			strings.Contains(metrics, `notifier_deliveries_total{destination="slack",outcome="dead_lettered"} 1`)
	})
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body := b.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	signals <- syscall.SIGTERM
	if code := <-ended; code != exitFine || strings.Contains(log.String(), secret) {
		t.Errorf("exit code %d, log:\n%s", code, log.String())
	}
	testDeadLetters(t, b, ids)
}

func testDeadLetters(t *testing.T, b *bed, ids []string) {
	t.Helper()
	var letters []struct {
		EventID string `json:"event_id"`
		Reason  string `json:"reason"`
		State   string `json:"state"`
	}
	if err := json.Unmarshal([]byte(b.mustCall("dlq", "list", "-o", "json")), &letters); err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].Reason != "rejected" || letters[0].State != "dead" || !strings.Contains(fmt.Sprint(ids), letters[0].EventID) {
		t.Fatalf("got letters %+v", letters)
	}
	id := letters[0].EventID
	if shown := b.mustCall("dlq", "show", id); !strings.Contains(shown, "reservation_id") || !strings.Contains(shown, "400 invalid_blocks") {
		t.Errorf("got\n%s", shown)
	}
	for _, args := range [][]string{{"dlq"}, {"dlq", "redrive"}, {"dlq", "show", "nothing"}} {
		if code, _, stderr := b.call(args...); code != exitUsage {
			t.Errorf("%v: exit code %d\n%s", args, code, stderr)
		}
	}
	if got := b.mustCall("dlq", "redrive", "--event", id); got != id+" delivered\n" {
		t.Errorf("got %q", got)
	}
	if n, noted := b.messagesOf(id); n != 1 || noted != 0 {
		t.Errorf("got %d messages, %d with a note", n, noted)
	}
	if list := b.mustCall("dlq", "list"); strings.Contains(list, id) {
		t.Errorf("still listed:\n%s", list)
	}
	if list := b.mustCall("dlq", "list", "--all"); !strings.Contains(list, id) {
		t.Errorf("not listed with --all:\n%s", list)
	}
}

// A process that is killed right after Slack has accepted a message repeats that
// one message, with a note, and no other.
func TestKilledProcesses(t *testing.T) {
	b := newBed(t)
	b.mustCall("migrate")
	binary := filepath.Join(t.TempDir(), "notifier")
	if output, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	const lives, each = 4, 5
	var mu sync.Mutex // guards process and accepted
	var process *exec.Cmd
	accepted := 0
	b.slack.OnAccept = func(fakeslack.Message) {
		mu.Lock()
		defer mu.Unlock()
		if accepted++; accepted%each == 0 && accepted < lives*each {
			_ = process.Process.Kill() // before it can see the answer
		}
	}
	ids := b.produce(20)
	for range lives {
		cmd := exec.Command(binary, "run", "-c", b.config)
		var log bytes.Buffer
		cmd.Stderr = &log
		mu.Lock()
		process = cmd
		err := cmd.Start()
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		until(t, "killed, or all posted", func() bool {
			return len(ended) > 0 || len(b.slack.Messages()) >= len(ids)+lives-1
		})
		if len(ended) == 0 {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := <-ended; err != nil {
				t.Errorf("the last life ended with %v\n%s", err, log.String())
			}
		}
	}
	repeated := 0
	for _, id := range ids {
		n, noted := b.messagesOf(id)
		if n < 1 || n > 2 || noted != n-1 {
			t.Errorf("event %s: got %d messages, %d with a note", id, n, noted)
		}
		repeated += n - 1
	}
	if repeated != lives-1 {
		t.Errorf("%d events were repeated, want one per kill: %d", repeated, lives-1)
	}
}

func TestRender(t *testing.T) {
	payload := `{"payment_id":"019ab5c1-7a00-7000-8000-000000000001","reservation_id":"019ab5c1-7a00-7000-8000-000000000002",
		"user_id":"019ab5c1-7a00-7000-8000-000000000003","status":"COMPLETED","amount":{"value":1500,"currency":"KWD"},"failure_code":null,"executed_at":"2026-11-24T12:00:00Z"}`
	var out, errs bytes.Buffer
	if code := Main([]string{"render", "-", "-o", "json"}, strings.NewReader(payload), &out, &errs, nil, nil); code != exitFine {
		t.Fatalf("exit code %d\n%s", code, errs.String())
	}
	var m struct{ Text string }
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || !strings.Contains(m.Text, "1.500 KWD") {
		t.Errorf("got %s, %v", out.String(), err)
	}
	if code := Main([]string{"render", filepath.Join(t.TempDir(), "none")}, nil, &out, &errs, nil, nil); code != exitUsage {
		t.Errorf("a missing file: exit code %d", code)
	}
}

func TestConfigurationErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.yaml")
	content := "kafka:\n  brokrs: [a:1]\n  topic: [a, b]\nmax_age: soon\nslack: 7\nunknown: {a: 1}\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		env  []string
		want []string
	}{
		"file":                {[]string{"run", "-c", path}, []string{"NOTIFIER_TYPO=1", "NOTIFIER_INBOX_RETENTION=x"}, []string{":2: kafka.brokrs", ":3: kafka.topic", ":4: max_age", ":5: slack", ":6: unknown", "NOTIFIER_TYPO", "NOTIFIER_INBOX_RETENTION"}},
		"nothing set":         {[]string{"run"}, nil, []string{"postgres.dsn"}},
		"webhook over http":   {[]string{"run"}, []string{"NOTIFIER_SLACK_WEBHOOK_URL=http://example.org/" + secret}, []string{"http"}},
		"unprotected dsn":     {[]string{"migrate"}, []string{"NOTIFIER_POSTGRES_DSN=postgres://u:" + secret + "@db.example.org/x?sslmode=require"}, []string{"sslmode=verify-full"}},
		"unreadable dsn":      {[]string{"migrate"}, []string{"NOTIFIER_POSTGRES_DSN=postgres://u:" + secret + "@db.example.org:port/x"}, []string{"postgres.dsn: want"}},
		"secret twice":        {[]string{"migrate"}, []string{"NOTIFIER_POSTGRES_DSN=" + secret, "NOTIFIER_POSTGRES_DSN_FILE=x"}, []string{"both set"}},
		"unknown command":     {[]string{"rum"}, nil, []string{"rum", "--help"}},
		"slack never set":     {[]string{"send-test"}, nil, []string{"slack.webhook_url"}},
		"repeat and brokers":  {[]string{"run"}, []string{"NOTIFIER_INBOX_REPEAT=never", "NOTIFIER_POSTGRES_DSN=postgres://localhost/x", "NOTIFIER_SLACK_WEBHOOK_URL=https://example.org/" + secret}, []string{"never", "brokers"}},
		"too slow a timeout":  {[]string{"run"}, []string{"NOTIFIER_SLACK_TIMEOUT=2m"}, []string{"slack.timeout"}},
		"a bad admin address": {[]string{"run"}, []string{"NOTIFIER_ADMIN_LISTEN=here"}, []string{"admin.listen"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := Main(test.args, nil, &out, &errs, test.env, nil); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			for _, want := range test.want {
				if !strings.Contains(errs.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, errs.String())
				}
			}
			if strings.Contains(errs.String(), secret) {
				t.Errorf("the secret is shown:\n%s", errs.String())
			}
		})
	}
}

// What config prints is a configuration.
func TestConfigPrintsAConfiguration(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main([]string{"config"}, nil, &out, &errs, nil, nil); code != exitFine {
		t.Fatal(errs.String())
	}
	path := filepath.Join(t.TempDir(), "printed.yaml")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	printed, err := loadConfig(path, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	defaults, err := loadConfig("", nil)
	if err != nil || fmt.Sprintf("%+v", printed) != fmt.Sprintf("%+v", defaults) {
		t.Errorf("got %+v, want %+v (%v)", printed, defaults, err)
	}
	if s := fmt.Sprintf("%v %+v %#v", Secret(secret), Secret(secret), Secret(secret)); strings.Contains(s, secret) {
		t.Errorf("a secret prints as %s", s)
	}
}

func TestVersion(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main([]string{"version", "-o", "json"}, nil, &out, &errs, nil, nil); code != exitFine || !strings.Contains(out.String(), `"version"`) {
		t.Errorf("exit code %d, %s%s", code, out.String(), errs.String())
	}
}
