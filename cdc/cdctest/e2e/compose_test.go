package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// loadCompose reads compose.yaml as docker compose does, with every profile.
func loadCompose(t testing.TB, text []byte, environment map[string]string) (*types.Project, error) {
	t.Helper()
	root := relaytest.ModuleDir(t)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  root,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(root, "compose.yaml"), Content: text}},
		Environment: environment,
	}, loader.WithProfiles([]string{"*"}))
}

func readModuleFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(relaytest.ModuleDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compose(t testing.TB) *types.Project {
	t.Helper()
	project, err := loadCompose(t, []byte(readModuleFile(t, "compose.yaml")), nil)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// isOnce says whether a service is there to end.
func isOnce(s types.ServiceConfig) bool { return s.Restart == types.RestartPolicyNo }

func TestComposeHasThePathAndItsMonitoring(t *testing.T) {
	project := compose(t)
	want := []string{"fake-slack", "grafana", "kafka", "notifier", "payment-api", "payment-migrate", "postgres", "prometheus", "relay", "relay-init", "relay-standby"}
	if got := project.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, service := range project.Services {
		if monitoring := name == "prometheus" || name == "grafana"; monitoring != slices.Contains(service.Profiles, "monitoring") {
			t.Errorf("%s has the profiles %v", name, service.Profiles)
		}
	}
	if active, standby := project.Services["relay"], project.Services["relay-standby"]; !slices.Equal(active.Command, standby.Command) || !equalEnvironment(active, standby) {
		t.Error("active and standby differ")
	}
	if command := project.Services["postgres"].Command; !slices.Contains(command, "wal_level=logical") {
		t.Errorf("Postgres has no logical WAL: %v", command)
	}
}

func equalEnvironment(a, b types.ServiceConfig) bool {
	return slices.Equal(a.Environment.ToMapping().Values(), b.Environment.ToMapping().Values())
}

// A loader that reads over mistakes would prove nothing.
func TestComposeIsReadStrictly(t *testing.T) {
	text := readModuleFile(t, "compose.yaml")
	for _, mistake := range [][2]string{
		{"stop_grace_period: 60s", "stop_grace_time: 60s"},
		{"postgres: {condition: service_healthy}", "postgres: {condition: service_wealthy}"},
		{"kafka: {condition: service_healthy}", "kavka: {condition: service_healthy}"},
		{"kafka-data:/var/lib/kafka/data", "kavka-data:/var/lib/kafka/data"},
	} {
		changed := strings.Replace(text, mistake[0], mistake[1], 1)
		if changed == text {
			t.Errorf("compose.yaml has no %q", mistake[0])
		}
		if _, err := loadCompose(t, []byte(changed), nil); err == nil {
			t.Errorf("%q is accepted", mistake[1])
		}
	}
}

func TestComposeServicesAreWaitedForByHealth(t *testing.T) {
	project := compose(t)
	for name, service := range project.Services {
		check := service.HealthCheck
		switch {
		case isOnce(service):
			if check != nil && !check.Disable {
				t.Errorf("%s ends, and has a health check", name)
			}
		case check == nil || check.Disable || len(check.Test) < 2:
			t.Errorf("%s has no health check", name)
		case check.StartPeriod == nil || check.StartInterval == nil || check.Interval == nil || check.Timeout == nil:
			t.Errorf("%s: health check without start_period, start_interval, interval or timeout", name)
		}
		for on, dependency := range service.DependsOn {
			want := types.ServiceConditionHealthy
			if isOnce(project.Services[on]) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			if dependency.Condition != want {
				t.Errorf("%s waits for %s to be %s, want %s", name, on, dependency.Condition, want)
			}
		}
	}
	for _, server := range []string{"relay", "kafka", "relay-init"} {
		if _, ok := project.Services["payment-api"].DependsOn[server]; ok {
			t.Errorf("payments wait for %s: they must be taken without it", server)
		}
	}
}

// A tag with a minor version at the least.
var pinned = regexp.MustCompile(`:v?\d+\.\d+[\w.-]*$`)

func TestComposeImagesArePinned(t *testing.T) {
	for name, service := range compose(t).Services {
		if service.Build == nil {
			if !pinned.MatchString(service.Image) {
				t.Errorf("%s: image %q is not pinned", name, service.Image)
			}
			continue
		}
		dockerfile := readModuleFile(t, service.Build.Dockerfile)
		bases := regexp.MustCompile(`(?m)^(?:FROM|ARG BASE=)\s*([\w./-]+:[\w.-]+)`).FindAllStringSubmatch(dockerfile, -1)
		if len(bases) != 1 {
			t.Errorf("%s: got the base images %v, want the compiler's; the programs' is scratch or an argument", name, bases)
		}
		for _, from := range bases {
			if !pinned.MatchString(from[1]) {
				t.Errorf("%s: base image %q is not pinned", name, from[1])
			}
		}
		if base := service.Build.Args["BASE"]; base != nil && !pinned.MatchString(*base) {
			t.Errorf("%s: base image %q is not pinned", name, *base)
		}
		// Here the stage and the program in it have one name.
		for _, line := range []string{"FROM base AS " + service.Build.Target, `ENTRYPOINT ["/` + service.Build.Target + `"]`} {
			if !slices.Contains(strings.Split(dockerfile, "\n"), line) {
				t.Errorf("%s: %s has no line %s", name, service.Build.Dockerfile, line)
			}
		}
	}
	if pinned.MatchString("postgres:latest") || pinned.MatchString("postgres") || pinned.MatchString("postgres:17") {
		t.Error("everything counts as pinned")
	}
}

func TestComposeFilesExist(t *testing.T) {
	mounted := 0
	for name, service := range compose(t).Services {
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			mounted++
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !volume.ReadOnly {
				t.Errorf("%s may write to %s", name, volume.Source)
			}
		}
	}
	if mounted == 0 {
		t.Error("no file is mounted")
	}
}

// Ports are published on loopback alone, because of the passwords; each can be
// moved by a variable that .env.example tells, with its default.
func TestComposePortsAndVariables(t *testing.T) {
	text := readModuleFile(t, "compose.yaml")
	used := map[string]string{}
	for _, match := range regexp.MustCompile(`\$\{(\w+)(?::-([^}]*))?\}`).FindAllStringSubmatch(text, -1) {
		used[match[1]] = match[2]
	}
	told := map[string]string{}
	moved := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^#(\w+)=(.*)$`).FindAllStringSubmatch(readModuleFile(t, ".env.example"), -1) {
		if match[1] == "COMPOSE_PROFILES" {
			continue // the command's own
		}
		told[match[1]] = match[2]
		if strings.HasSuffix(match[1], "_PORT") {
			moved[match[1]] = "4" + match[2]
		}
	}
	for name, value := range used {
		if value == "" || told[name] != value {
			t.Errorf("%s has the default %q, .env.example says %q", name, value, told[name])
		}
	}
	if len(told) != len(used) {
		t.Errorf(".env.example tells %d variables, compose.yaml uses %d", len(told), len(used))
	}
	project, err := loadCompose(t, []byte(text), moved)
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" || !strings.HasPrefix(port.Published, "4") {
				t.Errorf("%s publishes %s:%s, want loopback and the port of the environment", name, port.HostIP, port.Published)
			}
		}
	}
}

// Prometheus asks every program of ours, where it listens; Grafana asks
// Prometheus, and finds the dashboards where they are mounted.
func TestComposeMonitoringIsWired(t *testing.T) {
	const provisioning = "cmd/cdc-relay/monitoring/provisioning/"
	project := compose(t)
	var scraped []string
	for _, target := range scrapeTargets(t) {
		host, port, err := net.SplitHostPort(target)
		if err != nil || !slices.Contains(listens(project.Services[host]), port) {
			t.Errorf("nothing listens at %s", target)
		}
		scraped = append(scraped, host)
	}
	slices.Sort(scraped)
	if want := []string{"notifier", "payment-api", "relay", "relay-standby"}; !slices.Equal(scraped, want) {
		t.Errorf("Prometheus asks %v, want %v", scraped, want)
	}
	var sources struct {
		Datasources []struct{ Type, URL string }
	}
	decode(t, provisioning+"grafana/datasources/prometheus.yaml", &sources)
	if len(sources.Datasources) != 1 || sources.Datasources[0].Type != "prometheus" || sources.Datasources[0].URL != "http://prometheus:9090" {
		t.Errorf("Grafana asks %v", sources)
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	decode(t, provisioning+"grafana/dashboards/cdc-relay.yaml", &providers)
	grafana := project.Services["grafana"]
	mount := slices.IndexFunc(grafana.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == providers.Providers[0].Options.Path })
	if mount < 0 {
		t.Fatalf("nothing is mounted at %s", providers.Providers[0].Options.Path)
	}
	home := *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	source := strings.Replace(home, grafana.Volumes[mount].Target, grafana.Volumes[mount].Source, 1)
	if source == home {
		t.Errorf("the first page is %s, which is not among the dashboards", home)
	}
	if _, err := os.Stat(source); err != nil {
		t.Error(err)
	}
}

func scrapeTargets(t testing.TB) (targets []string) {
	t.Helper()
	var prometheus struct {
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	decode(t, "cmd/cdc-relay/monitoring/provisioning/prometheus.yaml", &prometheus)
	for _, job := range prometheus.ScrapeConfigs {
		for _, static := range job.StaticConfigs {
			targets = append(targets, static.Targets...)
		}
	}
	return targets
}

func decode(t testing.TB, name string, into any) {
	t.Helper()
	if err := yaml.Load([]byte(readModuleFile(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

var listenAddress = regexp.MustCompile(`^:(\d+)$`)

// listens are the ports that a service of ours listens on: settings and
// arguments of the form :8080.
func listens(service types.ServiceConfig) (ports []string) {
	for _, text := range append(service.Environment.ToMapping().Values(), service.Command...) {
		if _, value, ok := strings.Cut(text, "="); ok {
			text = value
		}
		if match := listenAddress.FindStringSubmatch(text); match != nil {
			ports = append(ports, match[1])
		}
	}
	return ports
}
