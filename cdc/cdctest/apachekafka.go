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
	"strings"
	"syscall"
)

// kafkaVersion is the Apache Kafka that is fetched.
const kafkaVersion = "4.4.0"

// kafkaPOM names the broker and a logging binding, which is otherwise only in
// the project's tarball.
const kafkaPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdcrelay</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + kafkaVersion + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.8.1</version>
      </plugin>
    </plugins>
  </build>
</project>
`

// kafkaLogging prints warnings, and what the broker says about its own start.
const kafkaLogging = `rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %c{1}: %m%n
logger.start.name = kafka.server.KafkaRaftServer
logger.start.level = INFO
`

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
	// Properties are lines of server.properties that override the defaults here.
	Properties map[string]string
	// TransactionVersion is the feature level transaction.version: 1 or 2; 0 is
	// the broker's default, which is 2.
	TransactionVersion int
	// HeapMiB is the largest heap; 0 is 1024.
	HeapMiB int
}

// NewApacheKafkaServer makes a cluster of one node without starting it.
func NewApacheKafkaServer(cfg ApacheKafkaConfig) (*KafkaServer, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("run Apache Kafka: %w; install a Java runtime (17 or later)", err)
	}
	libraries, err := kafkaLibraries()
	if err != nil {
		return nil, err
	}
	root, err := newServerDir()
	if err != nil {
		return nil, err
	}
	s, err := layApacheKafka(cfg, java, libraries, root)
	if err != nil {
		return nil, errors.Join(err, removeServerDir(root))
	}
	return s, nil
}

// layApacheKafka writes the configuration into root and formats the storage.
func layApacheKafka(cfg ApacheKafkaConfig, java, libraries, root string) (*KafkaServer, error) {
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
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&lines, "%s=%s\n", name, properties[name])
	}
	propertiesPath, loggingPath := filepath.Join(root, "server.properties"), filepath.Join(root, "log4j2.properties")
	if err := errors.Join(
		os.WriteFile(propertiesPath, []byte(lines.String()), 0o644),
		os.WriteFile(loggingPath, []byte(kafkaLogging), 0o644),
	); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	heap := cfg.HeapMiB
	if heap == 0 {
		heap = 1024
	}
	command := []string{java, "-Xmx" + strconv.Itoa(heap) + "m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + loggingPath, "-cp", filepath.Join(libraries, "*")}
	if err := formatStorage(command, propertiesPath, cfg.TransactionVersion); err != nil {
		return nil, err
	}
	command = append(command, "kafka.Kafka", propertiesPath)
	return &KafkaServer{
		brokers: []string{broker}, real: true, root: root,
		stopOrder: signalOrder(syscall.SIGTERM),
		launch: func(log *os.File) (*helper, error) {
			return startKeeper(log, root, false, syscall.SIGKILL, command...)
		},
	}, nil
}

// formatStorage gives the cluster its id and feature levels.
func formatStorage(java []string, properties string, transactionVersion int) error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // the text must not begin with "-", which would be read as an option
	args := append(slices.Clone(java[1:]), "kafka.tools.StorageTool", "format", "--standalone",
		"-t", base64.RawURLEncoding.EncodeToString(id[:]), "-c", properties)
	if transactionVersion != 0 {
		args = append(args, "--feature", "transaction.version="+strconv.Itoa(transactionVersion))
	}
	cmd := exec.Command(java[0], args...)
	cmd.Env = serverEnvironment()
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of Kafka: %w: %s", err, output)
	}
	return nil
}

// kafkaLibraries returns the directory of the broker's jars, fetched by Maven
// before if need be. Processes that need them at the same time wait for each
// other.
func kafkaLibraries() (string, error) {
	cache, err := userCache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "kafka-"+kafkaVersion)
	err = locked(home+".lock", func() error {
		// The directory gets its name only when it is complete.
		if _, err := os.Stat(home); err == nil {
			return nil
		}
		return fetchKafka(cache, home)
	})
	return home, err
}

// fetchKafka copies the jars into home.
func fetchKafka(cache, home string) error {
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("fetch Apache Kafka: %w; install Maven", err)
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(work) // what is left of it
	pom, jars := filepath.Join(work, "pom.xml"), filepath.Join(work, "jars")
	if err := os.WriteFile(pom, []byte(kafkaPOM), 0o644); err != nil {
		return fmt.Errorf("write pom.xml: %w", err)
	}
	fmt.Fprintf(os.Stderr, "cdctest: fetching Apache Kafka %s (about 130 MB, once)\n", kafkaVersion)
	cmd := exec.Command(maven, "--batch-mode", "--no-transfer-progress", "--quiet", "--file", pom,
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+jars)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Apache Kafka by Maven: %w: %s", err, output)
	}
	return os.Rename(jars, home)
}
