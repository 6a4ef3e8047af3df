package cdctest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// kafkaProperties suit one node that lives as long as a test. Timed out
// transactions are looked for every second instead of every ten. The controller
// lets a killed broker come back when its session has ended: after two seconds
// instead of nine.
var kafkaProperties = map[string]string{
	"process.roles":                                               "broker,controller",
	"node.id":                                                     "1",
	"controller.listener.names":                                   "CONTROLLER",
	"listener.security.protocol.map":                              "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
	"broker.session.timeout.ms":                                   "2000",
	"broker.heartbeat.interval.ms":                                "500",
	"auto.create.topics.enable":                                   "false",
	"num.partitions":                                              "1",
	"default.replication.factor":                                  "1",
	"min.insync.replicas":                                         "1",
	"offsets.topic.replication.factor":                            "1",
	"offsets.topic.num.partitions":                                "4",
	"transaction.state.log.replication.factor":                    "1",
	"transaction.state.log.min.isr":                               "1",
	"transaction.state.log.num.partitions":                        "4",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
	"share.coordinator.state.topic.replication.factor":            "1",
	"share.coordinator.state.topic.min.isr":                       "1",
	"share.coordinator.state.topic.num.partitions":                "4",
	"group.initial.rebalance.delay.ms":                            "0",
	"log.retention.hours":                                         "-1",
}

// ApacheKafkaConfig configures a broker; the zero value is fine.
type ApacheKafkaConfig struct {
	// Version is the release, such as Kafka3; empty is CDC_TEST_KAFKA_VERSION, else
	// Kafka4.
	Version string
	// Properties are lines of server.properties that override the defaults here.
	Properties map[string]string
	// TransactionVersion is the feature level transaction.version: 1 or 2; 0 is
	// CDC_TEST_KAFKA_TRANSACTION_VERSION, else the broker's default, which is 2 from
	// Kafka 4 on. Kafka 3.9 has only 1.
	TransactionVersion int
	// HeapMiB is the largest heap; 0 is 1024.
	HeapMiB int
	// ForLoad runs the Java machine with the options of Kafka's own start script. By
	// default it starts fast and never compiles for speed: in bench, at 1,000
	// transactions per second, p99 was 33 ms instead of 17.
	ForLoad bool
}

// startFast and runFast are options of the Java machine. (kafka-run-class.sh of
// Apache Kafka, KAFKA_JVM_PERFORMANCE_OPTS.)
var (
	startFast = []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	runFast   = []string{"-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"}
)

// NewApacheKafkaServer makes a cluster of one node without starting it.
func NewApacheKafkaServer(cfg ApacheKafkaConfig) (*KafkaServer, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("run Apache Kafka: %w; install a Java runtime (17 or later)", err)
	}
	release, err := findKafkaRelease(cfg.Version)
	if err != nil {
		return nil, err
	}
	libraries, err := release.libraries()
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	s, err := layApacheKafka(cfg, release, java, libraries, root)
	if err != nil {
		return nil, errors.Join(err, removeServerDir(root))
	}
	return s, nil
}

// layApacheKafka writes the configuration into root and formats the storage.
func layApacheKafka(cfg ApacheKafkaConfig, release kafkaRelease, java, libraries, root string) (*KafkaServer, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	broker, controller := loopback(ports[0]), loopback(ports[1])
	properties := maps.Clone(kafkaProperties)
	listeners := "PLAINTEXT://" + broker + ",CONTROLLER://" + controller
	properties["listeners"], properties["advertised.listeners"] = listeners, listeners
	properties["controller.quorum.bootstrap.servers"] = controller
	properties["log.dirs"] = filepath.Join(root, "data")
	maps.Copy(properties, cfg.Properties)
	propertiesPath, loggingPath := filepath.Join(root, "server.properties"), filepath.Join(root, "logging.properties")
	if err := errors.Join(
		os.WriteFile(propertiesPath, propertyLines(properties), 0o644),
		os.WriteFile(loggingPath, []byte(release.logging), 0o644),
	); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	heap := cfg.HeapMiB
	if heap == 0 {
		heap = 1024
	}
	command := func(machine []string) []string {
		return slices.Concat([]string{java, "-Xmx" + strconv.Itoa(heap) + "m"}, machine,
			[]string{"-Djava.awt.headless=true", release.loggingOption + loggingPath, "-cp", filepath.Join(libraries, "*")})
	}
	features, err := release.features(cfg.TransactionVersion)
	if err != nil {
		return nil, err
	}
	if err := formatStorage(command(startFast), propertiesPath, features); err != nil {
		return nil, err
	}
	machine := startFast
	if cfg.ForLoad {
		machine = runFast
	}
	return &KafkaServer{
		brokers: []string{broker}, real: true, root: root,
		stopOrder: signalOrder(syscall.SIGTERM),
		launch: func(log *os.File) (*helper, error) {
			return startKeeper(log, root, false, syscall.SIGKILL, append(command(machine), "kafka.Kafka", propertiesPath)...)
		},
	}, nil
}

// formatStorage gives the cluster its id and feature levels.
func formatStorage(java []string, properties string, features []string) error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // the text must not begin with "-", which would be read as an option
	args := append(slices.Clone(java[1:]), "kafka.tools.StorageTool", "format", "--standalone",
		"-t", base64.RawURLEncoding.EncodeToString(id[:]), "-c", properties)
	args = append(args, features...)
	cmd := exec.Command(java[0], args...)
	cmd.Env = serverEnvironment()
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of Kafka: %w: %s", err, output)
	}
	return nil
}

// propertyLines is a properties file, in the order of the names.
func propertyLines(properties map[string]string) []byte {
	var lines []byte
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		lines = fmt.Appendf(lines, "%s=%s\n", name, properties[name])
	}
	return lines
}
