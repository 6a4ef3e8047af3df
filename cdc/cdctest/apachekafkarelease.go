package cdctest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// KafkaVersionVariable is the version of Apache Kafka where a test names none,
// such as Kafka3.
const KafkaVersionVariable = "CDC_TEST_KAFKA_VERSION"

// KafkaTransactionVersionVariable is its transaction.version where a test names
// none.
const KafkaTransactionVersionVariable = "CDC_TEST_KAFKA_TRANSACTION_VERSION"

// The releases that tests name. Kafka 3 has the first protocol of transactions
// only, where the epoch stays the same from one transaction to the next.
const (
	Kafka3 = "3.9.2"
	Kafka4 = "4.4.0" // where nobody says otherwise
)

// kafkaRelease is what differs between the majors: Kafka 4 logs by log4j 2,
// Kafka 3 by log4j 1, whose successor by the same name is reload4j. The projects'
// poms leave the binding out; it is only in their tarballs.
type kafkaRelease struct {
	version       string
	binding       string // dependency
	logging       string // its configuration
	loggingOption string // names the configuration's path
}

const log4j2Binding = `<groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>`

const reload4jBinding = `<groupId>org.slf4j</groupId>
      <artifactId>slf4j-reload4j</artifactId>
      <version>1.7.36</version>`

// log4j2Logging prints warnings, and what the broker says about its own start.
const log4j2Logging = `rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %c{1}: %m%n
logger.start.name = kafka.server.KafkaRaftServer
logger.start.level = INFO
`

// reload4jLogging is the same for Kafka 3.
const reload4jLogging = `log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %c{1}: %m%n
log4j.logger.kafka.server.KafkaRaftServer=INFO
`

// findKafkaRelease takes an empty version for that of the environment.
func findKafkaRelease(version string) (kafkaRelease, error) {
	version = cmp.Or(version, os.Getenv(KafkaVersionVariable), Kafka4)
	switch major, _, _ := strings.Cut(version, "."); major {
	case "3":
		return kafkaRelease{version, reload4jBinding, reload4jLogging, "-Dlog4j.configuration=file:"}, nil
	case "4":
		return kafkaRelease{version, log4j2Binding, log4j2Logging, "-Dlog4j2.configurationFile="}, nil
	default:
		return kafkaRelease{}, fmt.Errorf("run Apache Kafka %s: only versions 3.9 and 4 can be started here", version)
	}
}

// features are the arguments that format the storage with a transaction
// version, 0 for that of the environment. Kafka 3.9 has the first protocol only
// and knows no such feature level.
func (r kafkaRelease) features(transactionVersion int) ([]string, error) {
	if text := os.Getenv(KafkaTransactionVersionVariable); transactionVersion == 0 && text != "" {
		var err error
		if transactionVersion, err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("%s: %w", KafkaTransactionVersionVariable, err)
		}
	}
	switch {
	case transactionVersion == 0, strings.HasPrefix(r.version, "3.") && transactionVersion == 1:
		return nil, nil
	case strings.HasPrefix(r.version, "3."):
		return nil, errors.New("format the storage of Kafka " + r.version + ": it has no transaction.version 2")
	default:
		return []string{"--feature", "transaction.version=" + strconv.Itoa(transactionVersion)}, nil
	}
}

// libraries returns the directory of the broker's jars.
func (r kafkaRelease) libraries() (string, error) {
	return mavenFetch{
		name: "kafka-" + r.version, what: "Apache Kafka " + r.version + " (about 130 MB, once)", pom: pom("kafka", "org.apache.kafka", "kafka_2.13", r.version, r.binding),
		goals: func(dir string) [][]string { return [][]string{copyRuntime(dir)} },
	}.directory()
}
