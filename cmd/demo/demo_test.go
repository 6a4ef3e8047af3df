package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

func TestMain(m *testing.M) { os.Exit(cdctest.Main(m)) }

// slackPost is what the notifier posts, as far as the demo reads it.
func slackPost(title, eventID string) fakeslack.Message {
	return fakeslack.Message{Text: title + ": 1 KRW", Body: json.RawMessage("{\"blocks\": \"event `" + eventID + "` · x\"}"), At: time.Now()}
}

// output collects what a demo prints.
type output struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// awaitPage returns the address of the page once a payment was seen on it.
func awaitPage(t *testing.T, out *output, ended <-chan int) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		text := out.String()
		if _, after, ok := strings.Cut(text, "page           "); ok && strings.Contains(text, "first payment on the page") {
			address, _, _ := strings.Cut(after, "\n")
			return address
		}
		select {
		case code := <-ended:
			t.Fatalf("it ended with exit code %d:\n%s", code, text)
		default:
		}
	}
	t.Fatalf("no payment on the page:\n%s", out)
	return ""
}

// client keeps no connection, which would outlive the test.
func client() *http.Client { return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} }

// eventually waits for what the demo does meanwhile.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestAShortCheckIsClean(t *testing.T) {
	t.Parallel()
	out := &output{}
	if code := Main(t.Context(), []string{"--check", "--duration", "6s", "--rate", "120", "--listen", "127.0.0.1:0"}, nil, out, out); code != exitFine {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	for _, want := range []string{"missing 0   duplicate 0   out of order 0   never committed 0   wrong content 0", "0 unknown; positions backwards 0 of", "CLEAN", "1 broker restarts, 1 Postgres restarts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

// The whole demo, page and audit included; that has to be seen red too. Payments
// are so few that each stays on the page for seconds, and nothing is broken but by
// the test, which takes the time that it needs.
func TestLostDoubledAndForgedRecordsAreFound(t *testing.T) {
	t.Parallel()
	out, ended, through := &output{}, make(chan int, 1), make(chan struct{})
	o := options{duration: 4 * time.Second, listen: "127.0.0.1:0", meanwhile: through}
	if err := o.complete(nil); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- runDemo(t.Context(), o, nil, out, out) }()
	url := awaitPage(t, out, ended)
	checkPage(t, url)
	checkButtons(t, url)
	_, after, _ := strings.Cut(out.String(), "broker         ")
	broker, _, _ := strings.Cut(after, "\n")
	phantom := forge(t, broker)
	lose(t, broker, url, phantom.Partition)
	// What is behind the phantom in its partition is posted after it.
	awaitSlack(t, url, func(partition int32, offset int64) bool {
		return partition == phantom.Partition && offset > phantom.Offset
	})
	close(through)
	if code := <-ended; code != exitUnclean {
		t.Errorf("exit code %d, want %d:\n%s", code, exitUnclean, out)
	}
	for _, want := range []string{
		`missing [1-9]\d*   duplicate 1   out of order 0   never committed 1 `, "positions backwards 2 of", `duplicate: event [-0-9a-f]{36}, payment-event\[`,
		"without message 0   repeated 0   marked as possibly repeated 0   unknown 1", "NOT CLEAN",
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%q does not match:\n%s", want, out)
		}
	}
}

// forge writes a record of the relay again, and one like it of a payment that
// was never committed, which it returns.
func forge(t *testing.T, broker string) *kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(event.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	eventually(t, "there is a record to copy", func() bool {
		records = client.PollFetches(t.Context()).Records()
		return len(records) > 0
	})
	original := records[0]
	again := &kgo.Record{Topic: original.Topic, Partition: original.Partition, Key: original.Key, Value: original.Value, Headers: original.Headers}
	phantom := &kgo.Record{Topic: original.Topic, Partition: original.Partition, Key: original.Key}
	var value recordValue
	if err := json.Unmarshal(original.Value, &value); err != nil {
		t.Fatal(err)
	}
	phantom.Value = bytes.ReplaceAll(original.Value, []byte(value.PaymentID), []byte(uuid.NewString()))
	for _, header := range original.Headers {
		if header.Key == "ce_id" {
			header.Value = []byte(uuid.Must(uuid.NewV7()).String())
		}
		phantom.Headers = append(phantom.Headers, header)
	}
	if err := client.ProduceSync(t.Context(), again, phantom).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return phantom
}

// lose removes the first records of a partition other than the one to keep, up
// to one that was seen in Slack.
func lose(t *testing.T, broker, url string, keep int32) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	partition, offset := awaitSlack(t, url, func(partition int32, _ int64) bool { return partition != keep })
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: event.Topic, Partition: partition, At: offset + 1})
	deleted, err := kadm.NewClient(client).DeleteRecords(t.Context(), before)
	if err = errors.Join(err, deleted.Error()); err != nil {
		t.Fatal(err)
	}
}

// awaitSlack returns the place of a record that was seen in Slack.
func awaitSlack(t *testing.T, url string, fits func(partition int32, offset int64) bool) (partition int32, offset int64) {
	t.Helper()
	eventually(t, "such a record is in Slack", func() bool {
		return slices.ContainsFunc(state(t, url).Paths, func(p path) bool {
			_, err := fmt.Sscanf(p.Record, event.Topic+"[%d]@%d", &partition, &offset)
			return err == nil && p.SlackMS > 0 && fits(partition, offset)
		})
	})
	return partition, offset
}

// state reads what the page is drawn from.
func state(t *testing.T, url string) (v view) {
	t.Helper()
	response, err := client().Get(url + "/state")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// checkPage reads the page and one event of its stream, until a payment is there.
func checkPage(t *testing.T, url string) {
	t.Helper()
	eventually(t, "the page has a payment in it", func() bool {
		response, err := client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return err == nil && response.StatusCode == http.StatusOK && strings.Contains(string(text), `"record":"payment-event[`)
	})
	eventually(t, "the stream shows a whole path", func() bool { return showsPath(t, url) })
}

func showsPath(t *testing.T, url string) bool {
	t.Helper()
	response, err := client().Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	first, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var v view
	if err := json.Unmarshal([]byte(strings.TrimPrefix(first, "data: ")), &v); err != nil {
		t.Fatalf("%v in %s", err, first)
	}
	complete := false
	for _, p := range v.Paths {
		complete = complete || p.CommitLSN != "" && p.Record != "" && p.SlackMS > 0 && p.AnsweredMS > 0
	}
	return complete && v.Sent > 0 && len(v.Messages) > 0 && v.RelayLives > 0 && v.FirstAfter > 0
}

// pageToken reads the token for the buttons.
func pageToken(t *testing.T, url string) string {
	t.Helper()
	response, err := client().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), `const token = "`)
	token, _, _ := strings.Cut(after, `"`)
	return token
}

// pressWith presses a button and returns the answer's status.
func pressWith(t *testing.T, url, key, token, host string) int {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, url+"/keys/"+key, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Demo-Token", token)
	request.Host = host
	response, err := client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// press presses a button as the page does.
func press(t *testing.T, url, key string) {
	t.Helper()
	if status := pressWith(t, url, key, pageToken(t, url), ""); status != http.StatusNoContent {
		t.Errorf("key %q: got %d", key, status)
	}
}

// checkButtons presses buttons with and without what is needed for it.
func checkButtons(t *testing.T, url string) {
	t.Helper()
	press(t, url, "a")
	token := pageToken(t, url)
	for _, test := range []struct {
		key, token, host string
		want             int
	}{
		{"k", "", "", http.StatusForbidden},
		{"k", token + "x", "", http.StatusForbidden},
		{"k", token, "demo.example.org", http.StatusForbidden},
		{"z", token, "", http.StatusInternalServerError},
		{"kk", token, "", http.StatusNotFound},
	} {
		if got := pressWith(t, url, test.key, test.token, test.host); got != test.want {
			t.Errorf("key %q, host %q: got %d, want %d", test.key, test.host, got, test.want)
		}
	}
}

func TestWrongFlagsAreToldAtOnce(t *testing.T) {
	for _, args := range [][]string{{"--check"}, {"--check", "--duration", "1s"}, {"--rate", "-1"}, {"--duration", "-1s"}, {"extra"}, {"--unknown"}} {
		out := &output{}
		if code := Main(t.Context(), args, nil, out, out); code != exitUsage || !strings.Contains(out.String(), "demo:") {
			t.Errorf("%q: exit code %d, %s", args, code, out)
		}
	}
}

func TestFormatAmount(t *testing.T) {
	for want, amount := range map[string]event.Amount{
		"15,000 KRW":    {Value: 15_000, Currency: "KRW"},
		"900 KRW":       {Value: 900, Currency: "KRW"},
		"42.00 USD":     {Value: 4200, Currency: "USD"},
		"0.05 EUR":      {Value: 5, Currency: "EUR"},
		"12,345.67 EUR": {Value: 1_234_567, Currency: "EUR"},
	} {
		if got := formatAmount(amount); got != want {
			t.Errorf("%+v: got %s, want %s", amount, got, want)
		}
	}
}

func TestThePathIsJoinedInAnyOrder(t *testing.T) {
	const id = "0193a5be-0a1b-7c2d-8e3f-4a5b6c7d8e9f"
	steps := []func(*watch){
		func(w *watch) {
			w.answered(paid{ID: "p", EventID: id, Status: event.StatusCompleted}, time.Now().Add(-time.Second))
		},
		func(w *watch) {
			w.delivered(seenRecord{partition: 2, offset: 41, eventID: id}, 0x16B3748, recordValue{PaymentID: "p"})
		},
		func(w *watch) { w.posted(slackPost("Payment completed", id)) },
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 1, 0}, {2, 0, 1}} {
		w := newWatch()
		var told []path
		w.onPath = func(p path) { told = append(told, p) }
		for _, i := range order {
			steps[i](w)
		}
		if len(told) != 1 || told[0].Record != "payment-event[2]@41" || told[0].CommitLSN != "0/16B3748" || told[0].KafkaMS < 900 || told[0].SlackMS < 900 {
			t.Errorf("%v: told %+v", order, told)
		}
		if v := w.snapshot(); v.Sent != 1 || v.InKafka != 1 || v.InSlack != 1 || len(v.Paths) != 1 || len(w.waiting)+len(w.early) != 0 {
			t.Errorf("%v: view %+v, waiting %v, early %v", order, v, w.waiting, w.early)
		}
		if w.first().IsZero() {
			t.Errorf("%v: no first payment", order)
		}
	}
}
