package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// levels maps each check's name to its worst level.
func levels(t testing.TB, findings []Finding) map[string]string {
	t.Helper()
	rank := map[string]int{LevelOK: 1, LevelSkipped: 2, LevelWarn: 3, LevelFail: 4}
	worst := make(map[string]string)
	for _, f := range findings {
		if rank[f.Level] == 0 || f.Problem == "" || f.Level == LevelFail && f.Fix == "" {
			t.Errorf("finding without level, problem or fix: %+v", f)
		}
		if rank[f.Level] > rank[worst[f.Name]] {
			worst[f.Name] = f.Level
		}
	}
	return worst
}

func TestCheck(t *testing.T) {
	cluster := fake(t)
	cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		t.Error("check fences")
		return nil, nil, false
	})
	brokers := cluster.ListenAddrs()
	cfg := testConfig(brokers)
	s := newSink(t, cfg)
	topic := newTopic(t, brokers, 6, nil)

	want := map[string]string{"brokers": LevelOK, "cluster id": LevelOK, "transaction version": LevelOK,
		"position topic": LevelFail, "position record": LevelSkipped,
		"topic " + string(topic): LevelWarn, "topic missing": LevelFail, "topic a b": LevelFail}
	if diff := cmp.Diff(want, levels(t, s.Check(testContext(t), []cdc.Topic{topic, "missing", "a b"}))); diff != "" {
		t.Errorf("before init (-want +got):\n%s", diff)
	}
	if _, err := s.EnsurePositionTopic(testContext(t)); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"brokers": LevelOK, "cluster id": LevelOK, "transaction version": LevelOK,
		"position topic": LevelWarn, "position record": LevelFail}
	if diff := cmp.Diff(want, levels(t, s.Check(testContext(t), nil))); diff != "" {
		t.Errorf("with an empty position topic (-want +got):\n%s", diff)
	}
}

func TestCheckOfAnInitialisedRelay(t *testing.T) {
	brokers := anyBrokers(t)
	s := ready(t, testConfig(brokers))
	if err := s.Commit(testContext(t), position(0x100)); err != nil {
		t.Fatal(err)
	}
	settle(t, s)
	if got := levels(t, s.Check(testContext(t), nil))["position record"]; got != LevelOK {
		t.Errorf("position record: %s", got)
	}
}

func TestCheckWithoutBrokers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s := newSink(t, testConfig([]string{"127.0.0.1:1"}))
	got := levels(t, s.Check(ctx, []cdc.Topic{"t"}))
	want := map[string]string{"brokers": LevelFail, "cluster id": LevelSkipped, "transaction version": LevelSkipped,
		"position topic": LevelSkipped, "position record": LevelSkipped, "topic t": LevelSkipped}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
}

func TestMissingRightsAreNamed(t *testing.T) {
	topic := func(name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Allow: true}
	}
	id := func(op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTransactionalId, Name: "cdc-relay.", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: op, Allow: true}
	}
	all := []kfake.ACL{id(kmsg.ACLOperationWrite), id(kmsg.ACLOperationDescribe),
		topic("", kmsg.ACLOperationDescribe), topic("cdc-relay.position.", kmsg.ACLOperationRead), topic("", kmsg.ACLOperationWrite)}
	for _, c := range []struct {
		name    string
		acls    []kfake.ACL
		wantWhy string // empty: works
	}{
		{"all but DescribeConfigs", all, ""},
		{"none on the transactional id", all[2:], "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
		{"no Read on the position topic", append(append([]kfake.ACL{}, all[:3]...), all[4]), "TOPIC_AUTHORIZATION_FAILED"},
		{"no Write on topics", all[:4], "TOPIC_AUTHORIZATION_FAILED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := fake(t, kfake.EnableACLs(), kfake.EnableSASL(), kfake.Superuser(mechanismSCRAM256, "admin", "admin"),
				kfake.User(mechanismSCRAM256, "relay", secret, c.acls...))
			cfg := testConfig(cluster.ListenAddrs())
			cfg.SASL = SASL{mechanismSCRAM256, "admin", password("admin")}
			if err := ready(t, cfg).Commit(testContext(t), position(0x100)); err != nil {
				t.Fatal(err)
			}
			cfg.SASL = SASL{mechanismSCRAM256, "relay", password(secret)}
			p, _, err := newSink(t, cfg).Open(testContext(t))
			if err == nil {
				err = p.Publish(testContext(t), batch(0x200, ""))
				p.Close()
			}
			if c.wantWhy == "" {
				if err != nil {
					t.Errorf("Open and Publish: %v", err)
				}
				return
			}
			problem := cdc.AsProblem(err)
			if problem == nil || problem.Treatment != cdc.Retry || problem.Why != c.wantWhy || problem.Fix == "" {
				t.Errorf("problem: %v", fmt.Sprint(err))
			}
		})
	}
}

func TestOneForbiddenTopicHidesNoOther(t *testing.T) {
	acl := func(name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	cluster := fake(t, kfake.EnableACLs(), kfake.EnableSASL(), kfake.SeedTopics(1, "open", "hidden"), kfake.User(mechanismSCRAM256, "relay", secret,
		acl("open", kmsg.ACLOperationDescribe), acl("open", kmsg.ACLOperationDescribeConfigs), acl("hidden", kmsg.ACLOperationDescribe)))
	cfg := testConfig(cluster.ListenAddrs())
	cfg.SASL = SASL{mechanismSCRAM256, "relay", password(secret)}
	err := newSink(t, cfg).withClient(testContext(t), func(cl *kgo.Client) error {
		_, topics, err := describeTopics(testContext(t), cl, "open", "hidden")
		if open := topics["open"]; !open.exists || open.configs["max.message.bytes"] == "" {
			t.Errorf("open: %+v", open)
		}
		hidden := topics["hidden"]
		if !hidden.exists || hidden.configs != nil || hidden.configsErr == nil || hidden.maxMessageBytes() != defaultMaxMessageBytes {
			t.Errorf("hidden: %+v", hidden)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
