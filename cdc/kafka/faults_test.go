package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// untilRecorded publishes as the relay does: after any error a new life reads
// what is recorded, and publishes the batch again only if it is not. It returns
// how many lives it took.
func untilRecorded(t *testing.T, s *Sink, p *cdc.Publisher, b *cdc.Batch) (lives int) {
	t.Helper()
	for lives = 1; ; lives++ {
		if *p == nil {
			next, facts, err := s.Open(testContext(t))
			if err != nil {
				continue
			}
			*p = next
			if recordedLSN(facts) >= b.Position.RecordedLSN {
				return lives
			}
		}
		err := (*p).Publish(testContext(t), b)
		if err == nil {
			return lives
		}
		t.Logf("life %d: %v", lives, err)
		if problem := cdc.AsProblem(err); problem.Treatment != cdc.Retry {
			t.Fatalf("not to be retried: %v", err)
		}
		(*p).Close()
		*p = nil
		if lives > 20 {
			t.Fatalf("it never succeeds: %v", err)
		}
	}
}

// TestPassingErrorsAreExact lets the brokers refuse one request, or answer that
// they do not know, in the middle of a row of transactions. Whatever the client
// makes of it, every batch is there once and in order.
func TestPassingErrorsAreExact(t *testing.T) {
	for _, c := range []struct {
		key kmsg.Key
		err *kerr.Error
	}{
		{kmsg.Produce, kerr.NotLeaderForPartition},
		{kmsg.Produce, kerr.NotEnoughReplicas},
		{kmsg.Produce, kerr.NotEnoughReplicasAfterAppend},
		{kmsg.Produce, kerr.RequestTimedOut},
		{kmsg.Produce, kerr.KafkaStorageError},
		{kmsg.Produce, kerr.InvalidProducerIDMapping},
		{kmsg.Produce, kerr.InvalidProducerEpoch},
		{kmsg.EndTxn, kerr.NotCoordinator},
		{kmsg.EndTxn, kerr.CoordinatorNotAvailable},
		{kmsg.EndTxn, kerr.CoordinatorLoadInProgress},
		{kmsg.EndTxn, kerr.ConcurrentTransactions},
		{kmsg.EndTxn, kerr.RequestTimedOut},
		{kmsg.EndTxn, kerr.InvalidProducerIDMapping},
		{kmsg.EndTxn, kerr.InvalidProducerEpoch},
	} {
		t.Run(c.key.Name()+" "+c.err.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t)
			brokers := cluster.ListenAddrs()
			topic := newTopic(t, brokers, 1, nil)
			s := ready(t, testConfig(brokers))
			first, _ := open(t, s)
			p := cdc.Publisher(first)
			var want []string
			for i := range 4 {
				var fault *kfake.FaultHandle
				if i == 2 {
					fault = cluster.Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err})
				}
				want = append(want, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
				lives := untilRecorded(t, s, &p, batch(cdc.LSN(0x100+i), topic, want[2*i:]...))
				if fault != nil && fault.Hits() == 0 {
					t.Error("no request met the fault")
				}
				if fault == nil && lives != 1 {
					t.Errorf("batch %d took %d lives", i, lives)
				}
			}
			p.Close()
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, want) {
				t.Errorf("visible: %v", got)
			}
			if _, facts := open(t, s); recordedLSN(facts) != 0x103 {
				t.Errorf("recorded LSN %s", recordedLSN(facts))
			}
		})
	}
}

// TestFencingMeetsPassingErrors: a start waits for its coordinator.
func TestFencingMeetsPassingErrors(t *testing.T) {
	for _, passing := range []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.ConcurrentTransactions} {
		t.Run(passing.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t)
			s := ready(t, testConfig(cluster.ListenAddrs()))
			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: passing, Count: 3})
			p, _ := open(t, s)
			publish(t, p, batch(0x100, ""))
			if fault.Hits() != 3 {
				t.Errorf("%d requests met the fault, want 3", fault.Hits())
			}
		})
	}
}

// TestLeadersMove moves the leaders of both topics between transactions, as a
// rolling restart does.
func TestLeadersMove(t *testing.T) {
	cluster := fake(t, kfake.NumBrokers(3))
	brokers := cluster.ListenAddrs()
	topic := newTopic(t, brokers, 1, nil)
	s := ready(t, testConfig(brokers))
	first, _ := open(t, s)
	p := cdc.Publisher(first)
	var want []string
	for i := range 9 {
		for _, moved := range []string{string(topic), s.cfg.PositionTopic} {
			if err := cluster.MoveTopicPartition(moved, 0, int32(i%3)); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, fmt.Sprint(i))
		untilRecorded(t, s, &p, batch(cdc.LSN(0x100+i), topic, want[i]))
	}
	p.Close()
	if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, want) {
		t.Errorf("visible: %v", got)
	}
}

// TestLostAnswersAreExact loses the answer to one request after the broker acted
// on it. EndTxn has TestOutcomeOfALostEndIsReadByTheNextLife.
func TestLostAnswersAreExact(t *testing.T) {
	v1 := []kfake.Opt{kfake.MaxVersions(kversion.V3_6_0())}
	for _, c := range []struct {
		name string
		key  kmsg.Key
		opts []kfake.Opt
	}{
		{"Produce", kmsg.Produce, nil},
		{"Produce under transactions v1", kmsg.Produce, v1},
		{"AddPartitionsToTxn under transactions v1", kmsg.AddPartitionsToTxn, v1},
		{"InitProducerID", kmsg.InitProducerID, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			brokers := fake(t, c.opts...).ListenAddrs()
			topic := newTopic(t, brokers, 1, nil)
			cfg := testConfig(brokers)
			network := new(network)
			cfg.Dial = network.dial
			s := ready(t, cfg)
			var lost atomic.Int32
			lose := func() {
				network.disturb(func(key int16) fault {
					if key != int16(c.key) || !lost.CompareAndSwap(0, 1) {
						return pass
					}
					return loseResponse
				})
			}
			if c.key == kmsg.InitProducerID {
				lose()
			}
			var p cdc.Publisher
			untilRecorded(t, s, &p, batch(0x100, topic, "a"))
			if c.key != kmsg.InitProducerID {
				lose()
			}
			untilRecorded(t, s, &p, batch(0x200, topic, "b"))
			untilRecorded(t, s, &p, batch(0x300, topic, "c"))
			p.Close()
			if lost.Load() == 0 {
				t.Error("no answer was lost")
			}
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("visible: %v", got)
			}
		})
	}
}

// TestLateRequestsOfTheFormerLife holds one request of a life on its way until
// the next one has opened and published.
func TestLateRequestsOfTheFormerLife(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			brokers := fake(t).ListenAddrs()
			topic := newTopic(t, brokers, 1, nil)
			cfg := testConfig(brokers)
			next := ready(t, cfg)
			network := new(network)
			cfg.Dial = network.dial
			zombie, _ := open(t, newSink(t, cfg))
			publish(t, zombie, batch(0x100, topic, "a"))
			held, release := make(chan struct{}), make(chan struct{})
			var once atomic.Bool
			network.disturb(func(k int16) fault {
				if k == int16(key) && once.CompareAndSwap(false, true) {
					close(held)
					<-release
				}
				return pass
			})
			result := make(chan error, 1)
			go func() { result <- zombie.Publish(testContext(t), batch(0x200, topic, "late")) }()
			<-held
			p, facts := open(t, next)
			if got := recordedLSN(facts); got != 0x100 {
				t.Errorf("recorded LSN %s, want 0/100", got)
			}
			publish(t, p, batch(0x200, topic, "b"))
			close(release)
			if err := <-result; err == nil {
				t.Error("the late request was taken")
			}
			publish(t, p, batch(0x300, topic, "c"))
			if got := values(visible(t, brokers, string(topic))); !cmp.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("visible: %v", got)
			}
		})
	}
}

// TestRightsLostAndGivenBack takes a right away between two transactions.
func TestRightsLostAndGivenBack(t *testing.T) {
	const user = "User:relay"
	on := func(b *kadm.ACLBuilder, operations ...kadm.ACLOperation) *kadm.ACLBuilder {
		return b.Allow(user).AllowHosts("*").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(operations...)
	}
	topics := func(prefix string) *kadm.ACLBuilder {
		return on(kadm.NewACLs().Topics(prefix), kadm.OpWrite, kadm.OpRead, kadm.OpDescribe, kadm.OpDescribeConfigs)
	}
	ids := func() *kadm.ACLBuilder {
		return on(kadm.NewACLs().TransactionalIDs("cdc-relay."), kadm.OpWrite, kadm.OpDescribe)
	}
	for _, c := range []struct {
		name, why string
		lost      *kadm.ACLBuilder
	}{
		{"the topic", "TOPIC_AUTHORIZATION_FAILED", topics("topic-")},
		{"the position topic", "TOPIC_AUTHORIZATION_FAILED", topics("cdc-relay.position.")},
		{"the transactional id", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", ids()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, kfake.EnableACLs(), kfake.EnableSASL(), kfake.Superuser(mechanismSCRAM256, "admin", "admin"), kfake.User(mechanismSCRAM256, "relay", secret))
			cfg := testConfig(cluster.ListenAddrs())
			cfg.SASL = SASL{mechanismSCRAM256, "admin", password("admin")}
			asAdmin := ready(t, cfg)
			admin := func(do func(ctx context.Context, cl *kadm.Client) error) {
				t.Helper()
				ctx := testContext(t)
				if err := asAdmin.withClient(ctx, func(cl *kgo.Client) error { return do(ctx, kadm.NewClient(cl)) }); err != nil {
					t.Fatal(err)
				}
			}
			give := func(b *kadm.ACLBuilder) {
				t.Helper()
				admin(func(ctx context.Context, cl *kadm.Client) error { _, err := cl.CreateACLs(ctx, b); return err })
			}
			const topic = "topic-of-rights"
			admin(func(ctx context.Context, cl *kadm.Client) error {
				_, err := cl.CreateTopic(ctx, 1, 1, nil, topic)
				return err
			})
			give(topics("topic-"))
			give(topics("cdc-relay.position."))
			give(ids())
			cfg.SASL = SASL{mechanismSCRAM256, "relay", password(secret)}
			s := newSink(t, cfg)
			p, _ := open(t, s)
			publish(t, p, batch(0x100, topic, "a"))

			admin(func(ctx context.Context, cl *kadm.Client) error {
				deleted, err := cl.DeleteACLs(ctx, c.lost)
				if len(deleted) == 0 {
					t.Error("no right was taken away")
				}
				return err
			})
			err := p.Publish(testContext(t), batch(0x200, topic, "b"))
			problem := cdc.AsProblem(err)
			if err == nil || problem.Treatment != cdc.Retry || problem.Why != c.why || problem.Fix == "" {
				t.Fatalf("Publish without the right: %v", err)
			}
			p.Close()
			give(c.lost)
			again := cdc.Publisher(nil)
			untilRecorded(t, s, &again, batch(0x200, topic, "b"))
			again.Close()
			var got []string
			cfg.SASL = SASL{mechanismSCRAM256, "admin", password("admin")}
			newSink(t, cfg).visibleTo(t, topic, 2, &got)
			if !cmp.Equal(got, []string{"a", "b"}) {
				t.Errorf("visible: %v", got)
			}
		})
	}
}

// visibleTo reads what a read_committed consumer with the sink's credentials
// sees, until there are want records and no more.
func (s *Sink) visibleTo(t *testing.T, topic string, want int, got *[]string) {
	t.Helper()
	cl, err := s.newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx := testContext(t)
	for len(*got) < want {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		*got = append(*got, values(fetches.Records())...)
	}
}

// TestPasswordRotates changes the password at the broker, then in the file.
func TestPasswordRotates(t *testing.T) {
	cluster := fake(t, kfake.EnableSASL(), kfake.Superuser(mechanismSCRAM256, "admin", "admin"), kfake.Superuser(mechanismSCRAM256, "relay", secret))
	cfg := testConfig(cluster.ListenAddrs())
	cfg.SASL = SASL{mechanismSCRAM256, "admin", password("admin")}
	asAdmin := ready(t, cfg)
	var current atomic.Value
	current.Store(secret)
	cfg.SASL = SASL{mechanismSCRAM256, "relay", func() (string, error) { return current.Load().(string), nil }}
	s := newSink(t, cfg)
	p, _ := open(t, s)
	publish(t, p, batch(0x100, ""))

	const renewed = "another canary"
	ctx := testContext(t)
	err := asAdmin.withClient(ctx, func(cl *kgo.Client) error {
		_, err := kadm.NewClient(cl).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "relay", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: renewed}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, p, batch(0x200, "")) // a connection that stands goes on
	p.Close()
	_, _, err = s.Open(untilRefused(t, s, anyRefusal))
	problem, ok := errors.AsType[*cdc.Problem](err)
	if !ok || problem.Treatment != cdc.Retry || !strings.Contains(problem.Fix, "kafka.sasl") || strings.Contains(err.Error(), secret) {
		t.Fatalf("Open with the old password: %v", err)
	}
	current.Store(renewed)
	p, facts := open(t, s)
	if got := recordedLSN(facts); got != 0x200 {
		t.Errorf("recorded LSN %s, want 0/200", got)
	}
	publish(t, p, batch(0x300, ""))
}

// TestCertificatesRotate replaces the authority and every certificate that it
// signed, at the broker first, then in the files that the sink was given.
func TestCertificatesRotate(t *testing.T) {
	former, next := newAuthority(t, "former ca"), newAuthority(t, "next ca")
	var broker atomic.Pointer[tls.Config]
	use := func(a *authority) {
		pair, _, _ := a.issue(t, "127.0.0.1")
		clients := x509.NewCertPool()
		clients.AddCert(a.cert)
		broker.Store(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
	}
	use(former)
	brokers := fake(t, kfake.TLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return broker.Load(), nil }})).ListenAddrs()
	_, certFile, keyFile := former.issue(t, "client")
	cfg := testConfig(brokers)
	cfg.TLS = TLS{CAFile: former.file, CertFile: certFile, KeyFile: keyFile}
	s := ready(t, cfg)
	p, _ := open(t, s)
	publish(t, p, batch(0x100, ""))

	use(next)
	publish(t, p, batch(0x200, "")) // a connection that stands goes on
	p.Close()
	refused := func(want string, is func(error) bool) {
		t.Helper()
		_, _, err := s.Open(untilRefused(t, s, is))
		if problem, ok := errors.AsType[*cdc.Problem](err); !ok || problem.Treatment != cdc.Retry || !strings.Contains(err.Error(), want) {
			t.Fatalf("Open: %v, want %q", err, want)
		}
	}
	refused("authority that is not trusted", anyRefusal)
	replace := func(file, with string) {
		t.Helper()
		content, err := os.ReadFile(with)
		if err == nil {
			err = os.WriteFile(file, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace(cfg.TLS.CAFile, next.file)
	// Whoever writes after the broker has hung up is told of that first.
	refused("it sent a tls alert", func(err error) bool {
		alert, ok := errors.AsType[*net.OpError](err)
		return ok && alert.Op == "remote error"
	})
	_, nextCert, nextKey := next.issue(t, "client")
	replace(certFile, nextCert)
	replace(keyFile, nextKey)
	p, facts := open(t, s)
	if got := recordedLSN(facts); got != 0x200 {
		t.Errorf("recorded LSN %s, want 0/200", got)
	}
	publish(t, p, batch(0x300, ""))
}
