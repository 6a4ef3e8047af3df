package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc/metrics"
)

// series is one selector in an expression.
type series struct {
	name     string // as written: with _bucket, _sum or _count
	matchers string // between the braces; empty where there are none
	interval string // between the brackets
	call     string // the function around it, empty for none
}

// promqlToken is a quoted string, a name, a number or one other character.
// Variables of Grafana ($job, $__rate_interval) count as names.
func promqlToken() *regexp.Regexp {
	return regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[$a-zA-Z_:][\w:$]*|[0-9][\w.]*|\S`)
}

// seriesOf finds the selectors of an expression: names that are no function,
// no keyword and no label of a grouping.
func seriesOf(expr string) (found []series) {
	tokens := promqlToken().FindAllString(expr, -1)
	at := func(i int) string {
		if i >= 0 && i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	closing := func(i int, end string) int {
		for i < len(tokens) && tokens[i] != end {
			i++
		}
		return i
	}
	grouping := []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	operators := []string{"and", "or", "unless", "bool", "offset"}
	for i := 0; i < len(tokens); i++ {
		token := tokens[i]
		switch {
		case !regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(token), slices.Contains(operators, token):
		case slices.Contains(grouping, token):
			i = closing(i, ")")
		case at(i+1) == "(", slices.Contains(grouping, at(i+1)): // a function or an aggregation
		default:
			s := series{name: token}
			if at(i-1) == "(" && regexp.MustCompile(`^[a-z_]+$`).MatchString(at(i-2)) {
				s.call = at(i - 2)
			}
			if at(i+1) == "{" {
				end := closing(i+1, "}")
				s.matchers, i = strings.Join(tokens[i+2:end], ""), end
			}
			if at(i+1) == "[" {
				end := closing(i+1, "]")
				s.interval, i = strings.Join(tokens[i+2:end], ""), end
			}
			found = append(found, s)
		}
	}
	return found
}

func TestSeriesOf(t *testing.T) {
	for expr, want := range map[string][]series{
		`a`: {{name: "a"}},
		`max by (job, slot) (a{x=~"$x", y="b } c"}) > 60`:   {{name: "a", matchers: `x=~"$x",y="b } c"`, call: ""}},
		`rate(a_total{x="1"}[$__rate_interval])`:            {{name: "a_total", matchers: `x="1"`, interval: "$__rate_interval", call: "rate"}},
		`time() - max(a) by (slot)`:                         {{name: "a", call: "max"}},
		`a unless on (slot) b or absent(c)`:                 {{name: "a"}, {name: "b"}, {name: "c", call: "absent"}},
		`sum without (le) (increase(a[5m] offset 1h)) / 10`: {{name: "a", interval: "5m", call: "increase"}},
	} {
		got := seriesOf(expr)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, want %+v", expr, got, want)
		}
	}
}

// known are the metrics that expressions may use: the relay's own, and those
// of the Go and process collectors that the dashboard shows.
func known() map[string]metrics.Row {
	rows := map[string]metrics.Row{
		"up":                            {Type: "gauge"},
		"go_goroutines":                 {Type: "gauge"},
		"process_cpu_seconds_total":     {Type: "counter"},
		"process_resident_memory_bytes": {Type: "gauge"},
		"process_start_time_seconds":    {Type: "gauge"},
		"process_open_fds":              {Type: "gauge"},
	}
	for _, row := range metrics.Table() {
		if row.Type != "histogram" {
			rows[row.Name] = row
			continue
		}
		row.Type = "counter" // each of its series is one
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			rows[row.Name+suffix] = row
		}
	}
	return rows
}

// checkSeries returns what is wrong with an expression anywhere.
func checkSeries(expr string) (problems []string) {
	found := seriesOf(expr)
	if len(found) == 0 {
		problems = append(problems, "it selects no metric")
	}
	for _, s := range found {
		row, ok := known()[s.name]
		switch moving := s.call == "rate" || s.call == "increase"; {
		case !ok:
			problems = append(problems, fmt.Sprintf("%s is no metric", s.name))
		case row.Type == "counter" && !moving:
			problems = append(problems, fmt.Sprintf("counter %s stands outside rate or increase", s.name))
		case row.Type != "counter" && moving:
			problems = append(problems, fmt.Sprintf("%s of %s, which is no counter", s.call, s.name))
		}
		for _, label := range regexp.MustCompile(`(\w+)[!=]=?~?"`).FindAllStringSubmatch(s.matchers, -1) {
			if ok && !slices.Contains(append([]string{"job", "instance", "le"}, row.Labels...), label[1]) {
				problems = append(problems, fmt.Sprintf("%s has no label %s", s.name, label[1]))
			}
		}
	}
	return problems
}

func TestCheckSeries(t *testing.T) {
	for expr, want := range map[string]string{
		`1`:                                        "no metric",
		`cdc_relay_leader`:                         "cdc_relay_leader is no metric",
		`sum(cdc_relay_batches_total)`:             "outside rate",
		`rate(cdc_relay_owed_rows[5m])`:            "no counter",
		`cdc_relay_batch_rows`:                     "is no metric",
		`cdc_relay_owed_rows{topic="a"}`:           "no label topic",
		`cdc_relay_owed_rows{slot=~"a"}`:           "",
		`increase(cdc_relay_batch_rows_count[5m])`: "",
	} {
		got := strings.Join(checkSeries(expr), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", expr, got, want)
		}
	}
}
