package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

// relay is one configured relay with slot, topics and genesis position.
type relay struct {
	name     string
	database database
	variant  variant
	topics   []string
	slot     string
	config   string // path
	admin    string // host:port
}

// newRelay makes one in the database; the first one there makes the outbox and
// the publication too.
func (b *bed) newRelay(ctx context.Context, d database, v variant) (*relay, error) {
	b.relays++
	name := fmt.Sprintf("bench%d", b.relays)
	admin, err := cdctest.FreeAddress()
	if err != nil {
		return nil, err
	}
	r := &relay{name: name, database: d, variant: v, slot: name, config: filepath.Join(b.dir, name+".yaml"), admin: admin}
	for i := range max(v.topics, 1) {
		r.topics = append(r.topics, fmt.Sprintf("%s-bench-%d", name, i))
	}
	count := v.partitions
	if count == 0 {
		count = partitions
	}
	if err := b.createTopics(ctx, count, r.topics...); err != nil {
		return nil, err
	}
	if err := os.WriteFile(r.config, []byte(b.configOf(r)), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	output, err := exec.CommandContext(ctx, b.binary, "init", "--apply", "--with-table", "--config", r.config).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("cdc-relay init: %w\n%s", err, output)
	}
	return r, nil
}

func (b *bed) configOf(r *relay) string {
	return fmt.Sprintf(`relay: %s
postgres: {dsn: %q, allow_insecure: %t, slot: %s, publication: %s, table: public.outbox}
kafka: {brokers: [%s], replication: 1, compression: %s}
delivery: %s
routing: {topic: "%s-{aggregatetype}", allowed_topics: ["%s-*"]}
admin: {listen: %s}
log: {level: warn, format: text}
`, r.name, b.dsn(r.database.name, r.variant.way), r.variant.way.link, r.slot, publication, strings.Join(b.kafka.Brokers(), ", "), r.variant.compression,
		r.variant.delivery, r.name, r.name, r.admin)
}

// publication is shared by the readers of one database.
const publication = "bench_outbox"

// createTopics makes topics of as many partitions each, and waits until all have
// leaders.
func (b *bed) createTopics(ctx context.Context, partitions int, topics ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// One request per hundred: a broker refuses requests that make too many
	// records of its controller.
	for some := range slices.Chunk(topics, 100) {
		created, err := admin.CreateTopics(ctx, int32(partitions), 1, nil, some...)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			return fmt.Errorf("create topics: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		details, err := admin.ListTopics(ctx, topics...)
		if err == nil && haveLeaders(details, topics, partitions) {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the leaders of %d new topics: %w", len(topics), err)
		}
	}
}

func haveLeaders(details kadm.TopicDetails, topics []string, partitions int) bool {
	return !slices.ContainsFunc(topics, func(topic string) bool {
		leading := 0
		for _, partition := range details[topic].Partitions {
			if partition.Err == nil && partition.Leader >= 0 {
				leading++
			}
		}
		return leading < partitions
	})
}
