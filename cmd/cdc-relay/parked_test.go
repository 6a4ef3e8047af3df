package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cdc-relay/cdc-relay/cdc/audit"
)

// outcomes runs parked retry and returns what became of each row.
func (r *testRelay) retry(t *testing.T, code int, args ...string) (published int, outcomes map[string]string) {
	t.Helper()
	c := execute(t, nil, append([]string{"parked", "retry", "--config", r.config, "-o", "json"}, args...)...)
	c.wantCode(t, code)
	var report retryReport
	if err := json.Unmarshal([]byte(c.stdout.String()), &report); err != nil {
		t.Fatalf("%v in %s", err, c.stdout.String())
	}
	outcomes = map[string]string{}
	for _, row := range report.Rows {
		outcomes[row.EventID] = row.Outcome
	}
	return report.Published, outcomes
}

// Rows are parked, the rules are mended, and the rows are published once, however
// often they are tried.
func TestParkedRowsAreRetried(t *testing.T) {
	t.Parallel()
	r := newBadRowRelay(t)
	r.routeByType(t, "on_bad_row: park")
	execute(t, nil, "init", "--apply", "--config", r.config).wantCode(t, exitFine) // makes the parked topic
	none := execute(t, nil, "parked", "list", "--config", r.config)
	none.wantCode(t, exitFine)
	wantIn(t, none.stdout.String(), "0 rows in topic")
	r.insertValues(t, `'`+r.topic+`', 'good', '1', '{}'`)
	later := r.topic + "-later"
	r.insertValues(t, `'`+later+`', 'k1', '{"a":1}', '{}'`)
	r.insertValues(t, `'`+r.topic+`-small', 'k2', repeat('x', 20000), '{}'`)
	r.insertValues(t, `'`+later+`', 'k3', 'gone', '{}'`)
	execute(t, nil, "run", "--once", "--config", r.config).wantCode(t, exitFine)

	list := execute(t, nil, "parked", "list", "--config", r.config, "-o", "json")
	list.wantCode(t, exitFine)
	var parked []parkedRow
	if err := json.Unmarshal([]byte(list.stdout.String()), &parked); err != nil || len(parked) != 3 {
		t.Fatalf("%v: %s", err, list.stdout.String())
	}
	ids := map[string]string{} // by key
	for _, row := range parked {
		show := execute(t, nil, "parked", "show", "--config", r.config, row.EventID)
		show.wantCode(t, exitFine)
		for _, key := range []string{"k1", "k2", "k3"} {
			if strings.Contains(show.stdout.String(), "aggregateid = "+key+"\n") {
				ids[key] = row.EventID
			}
		}
		if row.Position == "" || row.Reason == "" || row.Table != "public.outbox" || row.CommitTime == "" {
			t.Errorf("a parked row says %+v", row)
		}
	}
	wantIn(t, execute(t, nil, "parked", "show", "--config", r.config, ids["k1"]).stdout.String(), `payload      {"a":1}`, `reason       event "`+ids["k1"])
	r.exec(t, `DELETE FROM public.outbox WHERE aggregateid = 'k3'`)

	want := func(step string, published int, got map[string]string, k1, k2 string) {
		t.Helper()
		if diff := cmp.Diff(map[string]string{ids["k1"]: k1, ids["k2"]: k2, ids["k3"]: retryGone}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
		if wantPublished := strings.Count(k1+k2, retryPublished); published != wantPublished {
			t.Errorf("%s: %d published, want %d", step, published, wantPublished)
		}
	}
	n, got := r.retry(t, exitUnhealthy, "--all")
	want("nothing is mended", n, got, retryBad, retryBad)
	r.mendRules(t, later)
	n, got = r.retry(t, exitUnhealthy, "--all", "--dry-run")
	want("a dry run", n, got, retryPublished, retryPublished)
	n, got = r.retry(t, exitFine, ids["k2"])
	if diff := cmp.Diff(map[string]string{ids["k2"]: retryPublished}, got); diff != "" || n != 1 {
		t.Errorf("one row (-want +got):\n%s", diff)
	}
	n, got = r.retry(t, exitUnhealthy, "--all")
	want("all", n, got, retryPublished, retryThere)
	n, got = r.retry(t, exitUnhealthy, "--all")
	want("all again", n, got, retryThere, retryThere)

	wantKeys(t, r.records(t, r.topic+"-small", 1), "k2")
	record := r.records(t, later, 1)[0]
	headers := map[string]string{}
	for _, h := range record.Headers {
		headers[h.Key] = string(h.Value)
	}
	if string(record.Key) != "k1" || string(record.Value) != `{"a":1}` || headers[audit.HeaderBackfill] == "" || headers["cdc-relay-position"] != "" || headers["ce_id"] != ids["k1"] {
		t.Errorf("the record has key %s, value %s, headers %v", record.Key, record.Value, headers)
	}
	replaceInFile(t, r.config, fmt.Sprintf("%q, ", r.topic+"-compacted"), "") // which nobody can audit
	execute(t, nil, "audit", "--config", r.config, "--timeout", "0s").wantCode(t, exitFine)
	unknown := execute(t, nil, "parked", "retry", "--config", r.config, uuid.NewString())
	unknown.wantCode(t, exitFailure)
	wantIn(t, unknown.stderr.String(), "is not parked")
}

// mendRules allows the topic, makes it, and lets the small topic take more.
func (r *testRelay) mendRules(t *testing.T, topic string) {
	t.Helper()
	r.routeByType(t, "on_bad_row: park")
	replaceInFile(t, r.config, `"any*"`, `"any*", `+topic)
	r.createTopic(t, topic, nil)
	const setting, bytes = "max.message.bytes", "100000"
	admin := r.kafka.Admin(t)
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: setting, Value: new(bytes)}}, r.topic+"-small"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the small topic takes more", func() bool { // a real broker learns it later than the controller
		configs, err := admin.DescribeTopicConfigs(t.Context(), r.topic+"-small")
		return err == nil && len(configs) == 1 && slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == setting && c.MaybeValue() == bytes })
	})
}
