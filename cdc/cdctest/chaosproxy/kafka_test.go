package chaosproxy_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
)

// cluster is the shared one behind a proxy.
type cluster struct {
	kafka *cdctest.Kafka
	proxy *chaosproxy.Proxy
	topic string
}

func behindProxy(t *testing.T) cluster {
	t.Helper()
	kafka := cdctest.SharedKafka(t)
	proxy, err := chaosproxy.NewKafka(kafka.Brokers()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster{kafka: kafka, proxy: proxy, topic: kafka.Topic(t, 3)}
}

func (c cluster) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append(opts, kgo.SeedBrokers(c.proxy.Addresses()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseAllowingRebalance)
	return client
}

// produce writes one record into each partition, so that every broker is asked.
func (c cluster) produce(ctx context.Context, client *kgo.Client) error {
	records := make([]*kgo.Record, 0, 3)
	for partition := range int32(3) {
		records = append(records, &kgo.Record{Topic: c.topic, Partition: partition, Value: []byte("v")})
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

func TestClientsOnlyLearnTheProxysAddresses(t *testing.T) {
	c := behindProxy(t)
	client := c.client(t, kgo.TransactionalID(c.topic))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := c.produce(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	metadata, err := kadm.NewClient(client).BrokerMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	coordinator := kadm.NewClient(client).FindTxnCoordinators(t.Context(), c.topic)[c.topic]
	if coordinator.Err != nil {
		t.Fatal(coordinator.Err)
	}
	for _, broker := range append(metadata.Brokers, kadm.BrokerDetail{Host: coordinator.Host, Port: coordinator.Port}) {
		if address := net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))); !slices.Contains(c.proxy.Addresses(), address) {
			t.Errorf("broker %d is at %s, which is not one of the proxy's", broker.NodeID, address)
		}
	}
}

func TestAHeldProduceWaits(t *testing.T) {
	c := behindProxy(t)
	client := c.client(t)
	r := c.proxy.Add(chaosproxy.Rule{Message: chaosproxy.Produce, Direction: chaosproxy.ToServer, Action: chaosproxy.Hold})
	produced := make(chan error, 1)
	go func() { produced <- c.produce(t.Context(), client) }()
	awaitHit(t, r)
	select {
	case err := <-produced:
		t.Fatalf("produced while it was held: %v", err)
	case <-time.After(silence):
	}
	r.Remove()
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
}

func TestALostAnswerIsToARequestThatWasApplied(t *testing.T) {
	c := behindProxy(t)
	for _, action := range []chaosproxy.Action{chaosproxy.Cut, chaosproxy.Swallow} {
		client := c.client(t, kgo.TransactionalID(c.topic), kgo.RequestTimeoutOverhead(time.Second))
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := c.produce(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		r := c.proxy.Add(chaosproxy.Rule{Message: chaosproxy.EndTxn, Direction: chaosproxy.ToClient, Action: action})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- client.EndTransaction(ctx, kgo.TryCommit) }()
		awaitHit(t, r) // given up earlier, it might not even be sent
		time.AfterFunc(silence, cancel)
		if err := <-ended; err == nil {
			t.Error("the end was answered")
		}
		r.Remove()
		c.kafka.AwaitDecided(t, c.topic)
	}
	offsets, err := c.kafka.Admin(t).ListCommittedOffsets(t.Context(), c.topic)
	if err != nil {
		t.Fatal(err)
	}
	offsets.Each(func(o kadm.ListedOffset) {
		if want := int64(2 * (1 + 1)); o.Offset != want {
			t.Errorf("partition %d is stable up to %d, want %d", o.Partition, o.Offset, want)
		}
	})
}

func TestACutClusterIsReachedAgain(t *testing.T) {
	c := behindProxy(t)
	client := c.client(t)
	for range 3 {
		if err := c.produce(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		c.proxy.Cut()
	}
	c.proxy.SetLink(chaosproxy.Link{StopToClient: true})
	produced := make(chan error, 1)
	go func() { produced <- c.produce(t.Context(), client) }()
	select {
	case err := <-produced:
		t.Errorf("a deaf client heard of its records: %v", err)
	case <-time.After(silence):
	}
	c.proxy.SetLink(chaosproxy.Link{})
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
}
