package monitoring

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// dashboard is what the tests read of Grafana's JSON.
type dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	Description   string  `json:"description"`
	SchemaVersion int     `json:"schemaVersion"`
	Editable      bool    `json:"editable"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []variable `json:"list"`
	} `json:"templating"`
}

type variable struct {
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	Definition string     `json:"definition"`
	Datasource datasource `json:"datasource"`
	Refresh    int        `json:"refresh"`
	Multi      bool       `json:"multi"`
	IncludeAll bool       `json:"includeAll"`
	AllValue   string     `json:"allValue"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  datasource `json:"datasource"`
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []target `json:"targets"`
}

type target struct {
	RefID        string     `json:"refId"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
	Datasource   datasource `json:"datasource"`
}

func dashboards(t testing.TB) map[string]dashboard {
	t.Helper()
	names, err := fs.Glob(Files(), "dashboards/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %v, %v", names, err)
	}
	all := map[string]dashboard{}
	for _, name := range names {
		content, err := fs.ReadFile(Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(content, &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = d
	}
	return all
}

func TestDashboards(t *testing.T) {
	for name, d := range dashboards(t) {
		t.Run(name, func(t *testing.T) {
			if d.UID == "" || d.Title == "" || d.Description == "" || d.SchemaVersion < 39 || d.Editable {
				t.Errorf("want uid, title, description, schemaVersion 39 or newer, not editable; got %q %q %q %d %v", d.UID, d.Title, d.Description, d.SchemaVersion, d.Editable)
			}
			checkVariables(t, d)
			checkLayout(t, d)
			for _, p := range d.Panels {
				for _, problem := range checkPanel(p) {
					t.Errorf("panel %q: %s", p.Title, problem)
				}
			}
		})
	}
}

func checkVariables(t *testing.T, d dashboard) {
	t.Helper()
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Name == "datasource" {
			if v.Type != "datasource" {
				t.Errorf("variable datasource has type %s", v.Type)
			}
			continue
		}
		if v.Type != "query" || !v.Multi || !v.IncludeAll || v.AllValue != ".+" || v.Refresh != 2 || v.Datasource.UID != "${datasource}" {
			t.Errorf("variable %s: want a query on ${datasource}, multi, with all = .+, reloaded with the time range; got %+v", v.Name, v)
		}
		metric, _, _ := strings.Cut(strings.TrimPrefix(v.Definition, "label_values("), "{")
		metric, _, _ = strings.Cut(metric, ",")
		if _, ok := known()[metric]; !ok {
			t.Errorf("variable %s asks for %q, which is no metric", v.Name, metric)
		}
	}
	if want := []string{"datasource", "job", "instance", "slot"}; !slices.Equal(names, want) {
		t.Errorf("got variables %v, want %v", names, want)
	}
}

func checkLayout(t *testing.T, d dashboard) {
	t.Helper()
	var rows []string
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Type == "row" {
			rows = append(rows, p.Title)
		}
		if ids[p.ID] {
			t.Errorf("panel %q: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q ends right of the grid", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" {
					t.Fatalf("panel %q lies on panel %q", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
	}
	if want := []string{"Now", "Lag", "Throughput", "Postgres slot", "Kafka", "Process"}; !slices.Equal(rows, want) {
		t.Errorf("got rows %v, want %v", rows, want)
	}
}

func checkPanel(p panel) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if p.Type == "row" {
		return nil
	}
	if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
		bad("want title, description, unit and a target")
	}
	units := []string{"s", "bytes", "Bps", "cps", "short", "none", "percentunit"}
	if !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
		bad("unit %q is not one of %v", p.FieldConfig.Defaults.Unit, units)
	}
	if p.Datasource.UID != "${datasource}" {
		bad("data source %q is not the variable", p.Datasource.UID)
	}
	for _, q := range p.Targets {
		if q.Datasource.UID != "${datasource}" || q.LegendFormat == "" || q.RefID == "" {
			bad("target %s: want the variable's data source, a legend and a refId", q.RefID)
		}
		problems = append(problems, checkSeries(q.Expr)...)
		for _, s := range seriesOf(q.Expr) {
			want := []string{`job=~"$job"`, `instance=~"$instance"`}
			if slices.Contains(known()[s.name].Labels, "slot") {
				want = append(want, `slot=~"$slot"`)
			}
			for _, matcher := range want {
				if !slices.Contains(strings.Split(s.matchers, ","), matcher) {
					bad("%s is not selected by %s", s.name, matcher)
				}
			}
			if s.interval != "" && s.interval != "$__rate_interval" {
				bad("%s over %s, want $__rate_interval", s.name, s.interval)
			}
		}
	}
	return problems
}

func TestPanelsAreChecked(t *testing.T) {
	good := func() panel {
		p := panel{Type: "stat", Title: "t", Description: "d", Datasource: datasource{UID: "${datasource}"}}
		p.FieldConfig.Defaults.Unit = "s"
		p.Targets = []target{{
			RefID: "A", LegendFormat: "l", Datasource: datasource{UID: "${datasource}"},
			Expr: `rate(cdc_relay_batches_total{job=~"$job", instance=~"$instance", slot=~"$slot"}[$__rate_interval])`,
		}}
		return p
	}
	if problems := checkPanel(good()); len(problems) != 0 {
		t.Fatalf("a good panel: got %v", problems)
	}
	for want, spoil := range map[string]func(*panel){
		"want title":           func(p *panel) { p.Description = "" },
		"unit":                 func(p *panel) { p.FieldConfig.Defaults.Unit = "ms" },
		"data source":          func(p *panel) { p.Datasource.UID = "prometheus" },
		"a legend":             func(p *panel) { p.Targets[0].LegendFormat = "" },
		"not selected by slot": func(p *panel) { p.Targets[0].Expr = strings.ReplaceAll(p.Targets[0].Expr, `, slot=~"$slot"`, "") },
		"want $__rate_interval": func(p *panel) {
			p.Targets[0].Expr = strings.ReplaceAll(p.Targets[0].Expr, "$__rate_interval", "5m")
		},
		"outside rate": func(p *panel) { p.Targets[0].Expr = strings.ReplaceAll(p.Targets[0].Expr, "rate", "sum") },
	} {
		p := good()
		spoil(&p)
		if got := strings.Join(checkPanel(p), "; "); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
