package cdctest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What is fetched. Debezium 3.6 is built with the clients of Kafka 4.3.
const (
	connectVersion  = "4.3.1"
	debeziumVersion = "3.6.1.Final"
)

// connectStartTimeout bounds the start of a worker, which looks into every jar
// for plugins.
const connectStartTimeout = 4 * time.Minute

// ConnectVersions names what ConnectServer runs.
func ConnectVersions() (connect, debezium string) { return connectVersion, debeziumVersion }

// ConnectConfig configures a worker.
type ConnectConfig struct {
	Brokers []string
	// Properties are lines of worker.properties that override those here.
	Properties map[string]string
	// JavaOptions come after the defaults of Kafka's own start script, which they
	// override.
	JavaOptions []string
}

// ConnectServer is a standalone worker of Kafka Connect with Debezium's
// connector for PostgreSQL, under a helper process. Its methods are called from
// one goroutine.
type ConnectServer struct {
	url    string
	root   string // holds configuration, offsets and log
	launch func(log *os.File) (*helper, error)
	helper *helper // nil until the start
}

// NewConnectServer makes a worker without starting it. Remove it in the end.
func NewConnectServer(cfg ConnectConfig) (*ConnectServer, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("run Kafka Connect: %w; install a Java runtime (17 or later)", err)
	}
	libraries, err := connectLibraries()
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	s, err := layConnect(cfg, java, libraries, root)
	if err != nil {
		return nil, errors.Join(err, removeServerDir(root))
	}
	return s, nil
}

// connectLibraries returns the directory that has the worker's jars in worker
// and the connector in plugins.
func connectLibraries() (string, error) {
	return mavenFetch{
		name: "connect-" + connectVersion + "-debezium-" + debeziumVersion,
		what: "Kafka Connect " + connectVersion + " and Debezium " + debeziumVersion + " (about 65 MB, once)",
		pom:  pom("connect", "org.apache.kafka", "connect-runtime", connectVersion, log4j2Binding),
		goals: func(dir string) [][]string {
			return [][]string{
				copyRuntime(filepath.Join(dir, "worker")),
				{
					"dependency:unpack", "-Dartifact=io.debezium:debezium-connector-postgres:" + debeziumVersion + ":tar.gz:plugin",
					"-DoutputDirectory=" + filepath.Join(dir, "plugins"),
				},
			}
		},
	}.directory()
}

// layConnect writes the configuration into root.
func layConnect(cfg ConnectConfig, java, libraries, root string) (*ConnectServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &ConnectServer{url: "http://" + loopback(port), root: root}
	properties := map[string]string{
		"bootstrap.servers":            strings.Join(cfg.Brokers, ","),
		"key.converter":                "org.apache.kafka.connect.storage.StringConverter",
		"value.converter":              "org.apache.kafka.connect.storage.StringConverter",
		"offset.storage.file.filename": filepath.Join(root, "offsets"),
		"plugin.path":                  filepath.Join(libraries, "plugins"),
		"listeners":                    s.url,
	}
	maps.Copy(properties, cfg.Properties)
	propertiesPath, loggingPath := filepath.Join(root, "worker.properties"), filepath.Join(root, "log4j2.properties")
	if err := errors.Join(
		os.WriteFile(propertiesPath, propertyLines(properties), 0o644),
		os.WriteFile(loggingPath, []byte(log4j2Logging), 0o644),
	); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	// The options of kafka-run-class.sh and connect-standalone.sh.
	command := []string{
		java, "-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
	}
	command = append(command, cfg.JavaOptions...)
	command = append(command, "-Dlog4j2.configurationFile="+loggingPath, "-cp", filepath.Join(libraries, "worker", "*"),
		"org.apache.kafka.connect.cli.ConnectStandalone", propertiesPath)
	s.launch = func(log *os.File) (*helper, error) {
		return startKeeper(log, root, false, syscall.SIGKILL, command...)
	}
	return s, nil
}

// PID returns the process id of the worker; 0 when it does not run.
func (s *ConnectServer) PID() int { return s.helper.pid() }

// Start starts the worker and returns when it answers.
func (s *ConnectServer) Start(ctx context.Context) error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the helper has its own
	if s.helper, err = s.launch(log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, connectStartTimeout)
	defer cancel()
	for {
		if err = s.request(ctx, http.MethodGet, "/connectors", nil, nil); err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-s.helper.ended:
			err = s.helper.endedErr
		case <-ctx.Done():
		}
		err = fmt.Errorf("start Kafka Connect: %w; its log ends:\n%s", err, logTail(s.logPath()))
		return errors.Join(err, s.helper.end(signalOrder(syscall.SIGKILL)))
	}
}

// CreateConnector makes and starts a connector. That it works is told by
// Failure and by what it does.
func (s *ConnectServer) CreateConnector(ctx context.Context, name string, config map[string]string) error {
	body := struct {
		Name   string            `json:"name"`
		Config map[string]string `json:"config"`
	}{name, config}
	return s.request(ctx, http.MethodPost, "/connectors", body, nil)
}

// DeleteConnector stops a connector. Its slot may be in use a moment longer.
func (s *ConnectServer) DeleteConnector(ctx context.Context, name string) error {
	return s.request(ctx, http.MethodDelete, "/connectors/"+name, nil, nil)
}

// Failure returns why the connector or its task has failed; nil while they have
// not.
func (s *ConnectServer) Failure(ctx context.Context, name string) error {
	type state struct{ State, Trace string }
	var status struct {
		Connector state
		Tasks     []state
	}
	if err := s.request(ctx, http.MethodGet, "/connectors/"+name+"/status", nil, &status); err != nil {
		return err
	}
	for _, part := range append(status.Tasks, status.Connector) {
		if part.State == "FAILED" {
			return fmt.Errorf("connector %s: %s", name, part.Trace)
		}
	}
	return nil
}

// request speaks to the worker's REST interface; body and answer are JSON, or
// nil.
func (s *ConnectServer) request(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Kafka Connect: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("ask Kafka Connect: %w", err)
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: Kafka Connect answers %s: %s", method, path, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// Log returns the end of the worker's log, for errors.
func (s *ConnectServer) Log() string { return logTail(s.logPath()) }

func (s *ConnectServer) logPath() string { return filepath.Join(s.root, "log") }

// Remove kills the worker and deletes its directory.
func (s *ConnectServer) Remove() error {
	return errors.Join(s.helper.end(signalOrder(syscall.SIGKILL)), removeServerDir(s.root))
}

// pid returns the process id of the server, or of the helper that is one; 0
// when it does not run.
func (h *helper) pid() int {
	if !h.running() {
		return 0
	}
	if pid, err := strconv.Atoi(h.hello); err == nil {
		return pid // of the keeper's command
	}
	return h.cmd.Process.Pid
}
