package monitoring

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

type rule struct {
	Alert       string            `yaml:"alert"`
	Record      string            `yaml:"record"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t testing.TB) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	readYAML(t, "rules/alerts.yaml", &file)
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func readYAML(t testing.TB, name string, into any) {
	t.Helper()
	content, err := fs.ReadFile(Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func alertNames(t testing.TB) (names []string) {
	t.Helper()
	for _, r := range rules(t) {
		if !slices.Contains(names, r.Alert) {
			names = append(names, r.Alert)
		}
	}
	slices.Sort(names)
	return names
}

func TestAlerts(t *testing.T) {
	want := []string{"CdcRelayDown", "CdcRelayHalted", "CdcRelayLagHigh", "CdcRelayParkedRows", "CdcRelayRetainedWalHigh", "CdcRelaySlotInactive", "CdcRelayStalled"}
	if got := alertNames(t); !slices.Equal(got, want) {
		t.Errorf("got alerts %v, want %v", got, want)
	}
	summaries := map[string]string{}
	for _, r := range rules(t) {
		for _, problem := range checkSeries(r.Expr) {
			t.Errorf("%s: %s", r.Alert, problem)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: want a summary and a description", r.Alert)
		}
		if strings.Contains(r.Annotations["summary"], "{{") {
			t.Errorf("%s: a summary is the same for the whole group", r.Alert)
		}
		if before, ok := summaries[r.Alert]; ok && before != r.Annotations["summary"] {
			t.Errorf("%s: its rules have different summaries", r.Alert)
		}
		summaries[r.Alert] = r.Annotations["summary"]
		if want := "cmd/cdc-relay/runbooks/" + r.Alert + ".md"; r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		for _, s := range seriesOf(r.Expr) {
			if slices.Contains(known()[s.name].Labels, "slot") && !regexp.MustCompile(`by \([^)]*\bjob\b[^)]*\bslot\b`).MatchString(r.Expr) {
				t.Errorf("%s: %s is not combined by job and slot", r.Alert, s.name)
			}
		}
	}
}

// Every rule, not just every alert, has a case in which it fires, and every
// alert one in which it must not.
func TestEveryAlertHasATest(t *testing.T) {
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string `yaml:"alertname"`
				ExpAlerts []struct {
					ExpLabels map[string]string `yaml:"exp_labels"`
				} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	readYAML(t, "rules/alerts_test.yaml", &file)
	key := func(alert string, labels map[string]string) string {
		return alert + " " + labels["severity"] + " " + labels["cause"]
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			silent[c.Alertname] = silent[c.Alertname] || len(c.ExpAlerts) == 0
			for _, alert := range c.ExpAlerts {
				fires[key(c.Alertname, alert.ExpLabels)] = true
			}
		}
	}
	for _, r := range rules(t) {
		if !fires[key(r.Alert, r.Labels)] {
			t.Errorf("%s: no case in which it fires", key(r.Alert, r.Labels))
		}
		if !silent[r.Alert] {
			t.Errorf("%s: no case in which it must not fire", r.Alert)
		}
	}
}

func TestRunbooks(t *testing.T) {
	entries, err := os.ReadDir("../runbooks")
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for _, entry := range entries {
		pages = append(pages, strings.TrimSuffix(entry.Name(), ".md"))
	}
	if want := alertNames(t); !slices.Equal(pages, want) {
		t.Errorf("got runbooks %v, want one for each of %v", pages, want)
	}
	for _, page := range pages {
		content, err := os.ReadFile("../runbooks/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(content), "# "+page+"\n") {
			t.Errorf("%s: its title is not the alert's name", page)
		}
		for _, part := range []string{"Meaning", "Impact", "Look", "Fix", "Escalate"} {
			if !strings.Contains(string(content), "\n**"+part+".**") {
				t.Errorf("%s: no part %s", page, part)
			}
		}
		for _, link := range regexp.MustCompile(`\]\((\w+)\.md\)`).FindAllStringSubmatch(string(content), -1) {
			if !slices.Contains(pages, link[1]) {
				t.Errorf("%s links to %s, which does not exist", page, link[1])
			}
		}
	}
}

func TestEveryHaltHasAWayOut(t *testing.T) {
	source, err := os.ReadFile("../../../cdc/problem.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../runbooks/CdcRelayHalted.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`HaltReason = "([a-z-]+)"`).FindAllSubmatch(source, -1)
	if len(reasons) == 0 {
		t.Fatal("no reason was found")
	}
	for _, reason := range reasons {
		if !strings.Contains(string(page), "\n| `"+string(reason[1])+"` |") {
			t.Errorf("the runbook has no row for %s", reason[1])
		}
	}
}
