package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BrokersVariable makes SharedKafka use the cluster at these addresses, which
// are separated by commas.
const BrokersVariable = "KAFKA_BROKERS"

// Kafka is a KafkaServer in the hands of tests: what fails, fails the test.
type Kafka struct {
	server *KafkaServer
}

// SharedKafka returns the cluster in KAFKA_BROKERS, else a fake one that all
// tests of this binary share and Main removes. Tests that stop it use a cluster
// of their own instead.
func SharedKafka(t testing.TB) *Kafka {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.kafka != nil {
		return &Kafka{server: shared.kafka}
	}
	server, err := sharedKafkaServer()
	if err != nil {
		t.Fatal(err)
	}
	shared.kafka = server
	return &Kafka{server: server}
}

func sharedKafkaServer() (*KafkaServer, error) {
	addresses := os.Getenv(BrokersVariable)
	if addresses == "" {
		return runKafka(NewKfakeServer)
	}
	server := &KafkaServer{brokers: strings.Split(strings.ReplaceAll(addresses, " ", ""), ","), real: true}
	probe := &KafkaServer{brokers: server.brokers[:1]} // the variable may name more than there are
	if err := probe.awaitBrokers(context.Background(), nil); err != nil {
		return nil, fmt.Errorf("%s=%s: %w", BrokersVariable, addresses, err)
	}
	return server, nil
}

// runKafka makes a cluster and starts it; again on other ports if these were
// taken meanwhile.
func runKafka(make func() (*KafkaServer, error)) (*KafkaServer, error) {
	for {
		server, err := make()
		if err != nil {
			return nil, err
		}
		if err = server.Start(context.Background()); err == nil {
			return server, nil
		}
		removeErr := server.Remove()
		if err = errors.Join(err, removeErr); !anyTaken(server.brokers...) {
			return nil, err
		}
	}
}

// StartKafka starts a fake cluster of the test's own, removed with the test.
func StartKafka(t testing.TB) *Kafka {
	t.Helper()
	return startKafka(t, NewKfakeServer)
}

// StartApacheKafka starts an Apache Kafka of the test's own, removed with the
// test. It needs Java, and Maven for the first time.
func StartApacheKafka(t testing.TB) *Kafka {
	t.Helper()
	return StartApacheKafkaWith(t, ApacheKafkaConfig{})
}

// StartApacheKafkaWith is StartApacheKafka with a configuration.
func StartApacheKafkaWith(t testing.TB, cfg ApacheKafkaConfig) *Kafka {
	t.Helper()
	return startKafka(t, func() (*KafkaServer, error) { return NewApacheKafkaServer(cfg) })
}

func startKafka(t testing.TB, make func() (*KafkaServer, error)) *Kafka {
	t.Helper()
	server, err := runKafka(make)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Kafka at %s ends:\n%s", server.brokers[0], logTail(server.LogPath()))
		}
		if err := server.Remove(); err != nil {
			t.Error(err)
		}
	})
	return &Kafka{server: server}
}

// Server returns the server itself.
func (k *Kafka) Server() *KafkaServer { return k.server }

// Brokers returns the addresses.
func (k *Kafka) Brokers() []string { return k.server.Brokers() }

// Real says whether it is an Apache Kafka.
func (k *Kafka) Real() bool { return k.server.Real() }

// Stop stops the cluster in good order and returns when it is down.
func (k *Kafka) Stop(t testing.TB) {
	t.Helper()
	if err := k.server.Stop(); err != nil {
		t.Fatal(err)
	}
}

// Kill ends an Apache Kafka by SIGKILL; for a fake cluster it fails the test.
func (k *Kafka) Kill(t testing.TB) {
	t.Helper()
	if err := k.server.Kill(); err != nil {
		t.Fatal(err)
	}
}

// Start starts the cluster again, on the same data and addresses.
func (k *Kafka) Start(t testing.TB) {
	t.Helper()
	if err := k.server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// AwaitDecided returns when no partition of the topics has an open or undecided
// transaction: its last stable offset is its high watermark.
func (k *Kafka) AwaitDecided(t testing.TB, topics ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	client, err := k.client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for {
		decided, err := isDecided(ctx, admin, topics)
		if decided {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("transactions are still open in %v: %v", topics, err)
		}
	}
}

// serverPatience bounds the wait for what a server does at once where it is not
// kept from it.
const serverPatience = time.Minute

// endsArrive is how long the end of a transaction may be on its way to a broker
// from a client that has stopped.
const endsArrive = 3 * time.Second

// AwaitMarkers returns when every transaction in the topics that was told to end
// has its markers, which a cluster of one node may lose when it is stopped before:
// see KafkaServer.Stop. The caller sees to it that no other is told so meanwhile.
// One that is open, and that nobody ends, is left so. A topic that is not there
// has no transactions.
func (k *Kafka) AwaitMarkers(t testing.TB, topics ...string) {
	t.Helper()
	client, err := k.client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for began := time.Now(); ; Pause(t, 20*time.Millisecond) {
		// Nothing begins to end meanwhile: what the first look says is true at the second.
		ending, err1 := areEnding(t.Context(), admin, topics)
		decided, err2 := isDecided(t.Context(), admin, topics)
		took := time.Since(began)
		switch err := errors.Join(err1, err2); {
		case err == nil && !ending && (decided || took > endsArrive):
			return
		case took > serverPatience:
			t.Fatalf("markers are still missing in %v: %v", topics, err)
		}
	}
}

// areEnding says whether a transaction in the topics was told to end and lacks
// markers. Its partitions need not have records of it.
func areEnding(ctx context.Context, admin *kadm.Client, topics []string) (bool, error) {
	states := []string{"PrepareCommit", "PrepareAbort", "PrepareEpochFence"}
	listed, err := admin.ListTransactions(ctx, nil, states)
	if err != nil || len(listed) == 0 {
		return false, err
	}
	described, err := admin.DescribeTransactions(ctx, listed.TransactionalIDs()...)
	for _, transaction := range described {
		if !slices.Contains(states, transaction.State) {
			continue // it has ended meanwhile
		}
		for topic := range transaction.Topics {
			if slices.Contains(topics, topic) {
				return true, err
			}
		}
	}
	return false, err
}

func isDecided(ctx context.Context, admin *kadm.Client, topics []string) (bool, error) {
	// In this order: the watermark read later is the larger one, so that equal
	// means that all of it is stable.
	stable, err1 := admin.ListCommittedOffsets(ctx, topics...)
	ends, err2 := admin.ListEndOffsets(ctx, topics...)
	err := errors.Join(err1, err2, listingError(stable), listingError(ends))
	return err == nil && sameOffsets(stable, ends), err
}

// listingError is the first error but that a topic is not there.
func listingError(listed kadm.ListedOffsets) (first error) {
	listed.Each(func(offset kadm.ListedOffset) {
		if first == nil && !errors.Is(offset.Err, kerr.UnknownTopicOrPartition) {
			first = offset.Err
		}
	})
	return first
}

func sameOffsets(a, b kadm.ListedOffsets) bool {
	same := true
	a.Each(func(offset kadm.ListedOffset) {
		other, ok := b.Lookup(offset.Topic, offset.Partition)
		same = same && ok && other.Offset == offset.Offset
	})
	return same
}

// Client returns a client that is closed with the test.
func (k *Kafka) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := k.client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseAllowingRebalance)
	return client
}

func (k *Kafka) client(opts ...kgo.Opt) (*kgo.Client, error) {
	defaults := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers()...),
		kgo.MetadataMinAge(100 * time.Millisecond), // an error that needs new metadata waits for it
	}
	return kgo.NewClient(append(defaults, opts...)...)
}

// Admin returns an admin client that is closed with the test.
func (k *Kafka) Admin(t testing.TB) *kadm.Client {
	t.Helper()
	return kadm.NewClient(k.Client(t))
}

// TopicName returns a name that nobody else uses, for topics that the code
// under test creates. Such a topic is deleted with the test if it exists.
func (k *Kafka) TopicName(t testing.TB) string {
	t.Helper()
	name := wordOf(t.Name(), 60) + "-" + uuid.NewString()[:8]
	t.Cleanup(func() {
		if !k.server.Running() {
			return // the test stopped its own cluster, which goes as a whole
		}
		if err := k.deleteTopic(name); err != nil {
			t.Errorf("delete topic %s: %v", name, err)
		}
	})
	return name
}

// Topic creates a topic with a name of its own, deleted with the test.
func (k *Kafka) Topic(t testing.TB, partitions int32) string {
	t.Helper()
	name := k.TopicName(t)
	if err := k.createTopic(name, partitions); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	return name
}

// createTopic returns when every partition has a leader: a real cluster answers
// the request before that.
func (k *Kafka) createTopic(name string, partitions int32) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	client, err := k.client()
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// The name is nobody else's: where the topic exists, an answer was lost.
	if _, err := admin.CreateTopic(ctx, partitions, -1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	for {
		topics, err := admin.ListTopics(ctx, name)
		if err == nil && allHaveLeaders(topics[name], partitions) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err, topics[name].Err)
		}
	}
}

func allHaveLeaders(topic kadm.TopicDetail, partitions int32) bool {
	if topic.Err != nil || len(topic.Partitions) != int(partitions) {
		return false
	}
	for _, p := range topic.Partitions {
		if p.Err != nil || p.Leader < 0 {
			return false
		}
	}
	return true
}

// deleteTopic deletes a topic; one that does not exist is fine.
func (k *Kafka) deleteTopic(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	client, err := k.client()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = kadm.NewClient(client).DeleteTopic(ctx, name)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil
	}
	return err
}
