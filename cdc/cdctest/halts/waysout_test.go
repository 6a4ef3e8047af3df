package halts_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// said is what a command printed with -o json.
type said struct {
	Reason  cdc.HaltReason `json:"reason"`
	Finding string         `json:"finding"`
	Events  []struct {
		EventID string `json:"event_id"`
	} `json:"events"`
	Left string `json:"left"`
	Done bool   `json:"done"`
	ID   string `json:"id"`
}

// follow runs a command that the message of the halt names, word for word, first
// without --confirm, which has to change nothing, and then as it stands there.
func (b *bed) follow(t *testing.T, command string) said {
	t.Helper()
	if !strings.Contains(b.message, "cdc-relay "+command+" --confirm") {
		t.Fatalf("the message does not name the command %q:\n%s", command, b.message)
	}
	args := strings.Fields(command)
	before := b.marks(t)
	shown := b.command(t, 0, args...)
	if diff := b.marks(t); shown.Done || diff.Confirmed != before.Confirmed || !slices.Equal(b.commands(t), b.commandsSeen) {
		t.Errorf("%s without --confirm changed something: %+v", command, shown)
	}
	done := b.command(t, 0, append(args, "--confirm")...)
	if !done.Done || done.ID == "" || done.Finding == "" {
		t.Fatalf("%s --confirm: %+v", command, done)
	}
	b.commandsSeen = append(b.commandsSeen, b.Relay+"/command/"+done.ID)
	if now := b.commands(t); !slices.Equal(now, b.commandsSeen) {
		t.Errorf("the position topic has the commands %v, want %v", now, b.commandsSeen)
	}
	return done
}

// command runs a command of the relay to its end.
func (b *bed) command(t *testing.T, code int, args ...string) (out said) {
	t.Helper()
	options := b.Options()
	options.Command, options.Args = args[0], append(args[1:len(args):len(args)], "-o", "json")
	p := relaytest.Start(t, options)
	if got := wait(t, p); got != code {
		t.Fatalf("%v: exit code %d, want %d:\n%s%s", args, got, code, p.Stdout(), p.Stderr())
	}
	if p.Stdout() != "" {
		if err := json.Unmarshal([]byte(p.Stdout()), &out); err != nil {
			t.Fatalf("%v in %s", err, p.Stdout())
		}
	}
	return out
}

// commands are the keys of the command records, in order.
func (b *bed) commands(t *testing.T) (keys []string) {
	t.Helper()
	if !b.topicExists(t, b.PositionTopic) {
		return nil
	}
	for _, record := range b.readTopic(t, b.PositionTopic)[0] {
		if strings.HasPrefix(string(record.Key), b.Relay+"/command/") {
			keys = append(keys, string(record.Key))
		}
	}
	return keys
}

func (b *bed) topicExists(t *testing.T, topic string) bool {
	t.Helper()
	topics, err := b.Kafka.Admin(t).ListTopics(t.Context())
	return err == nil && topics.Has(topic)
}

// repaired lets a relay run, and publishes what the stream has passed over.
func (b *bed) repaired(t *testing.T) {
	t.Helper()
	relay := b.run(t)
	relay.WaitState(t, cdc.StateStreaming, patience)
	b.awaitDelivered(t)
	b.command(t, 0, "backfill", "--since", "1h", "--rate", "0")
	b.command(t, 0, "audit")
	if code := relay.Terminate(t); code != 0 {
		t.Errorf("SIGTERM ended the relay with exit code %d", code)
	}
}

// requireOnce demands that every row of the table was delivered once, in
// whatever order, and that what Kafka has beside them are the phantoms.
func (b *bed) requireOnce(t *testing.T, phantoms []string) {
	t.Helper()
	rows := strings.Fields(query(t, b.db, `SELECT string_agg(id::text, ' ') FROM public.outbox WHERE aggregatetype = $1`, b.Topic))
	seen := map[string]int{}
	for _, records := range b.readTopic(t, b.Topic) {
		for _, record := range records {
			seen[header(record, "ce_id")]++
		}
	}
	for _, id := range append(rows, phantoms...) {
		if seen[id] != 1 {
			t.Errorf("event %s was delivered %d times", id, seen[id])
		}
		delete(seen, id)
	}
	if len(seen) > 0 || len(rows) == 0 {
		t.Errorf("%d rows; neither in the table nor declared: %v", len(rows), seen)
	}
}

// resynced is the way out of halts after which only the table tells what should
// be in Kafka.
func resynced(t *testing.T, b *bed) {
	t.Helper()
	b.resync(t, 0)
}

// resyncedUnderLoad is the same while rows are written.
func resyncedUnderLoad(t *testing.T, b *bed) {
	t.Helper()
	w := b.startWriter(t)
	w.awaitMore(t)
	b.follow(t, "resync")
	w.awaitMore(t)
	w.end(t)
	b.once(t)
	b.requireOnce(t, nil)
	b.command(t, 0, "audit", "--timeout", "0s")
}

// resync follows the text, and wants so many events declared that only Kafka has.
func (b *bed) resync(t *testing.T, phantoms int) {
	t.Helper()
	b.follow(t, "resync")
	generation := b.newestRecord(t).Generation
	b.write(t, 2)
	b.once(t)
	if record := b.newestRecord(t); record.Generation != generation || generation < 2 || record.State != cdc.RecordRunning {
		t.Errorf("after the resync the record says %s, generation %d then %d", record.State, generation, record.Generation)
	}
	declared := b.phantoms(t)
	if len(declared) != phantoms {
		t.Errorf("%d events in Kafka have no row, want %d", len(declared), phantoms)
	}
	b.requireOnce(t, declared)
	if phantoms == 0 {
		b.command(t, 0, "audit", "--timeout", "0s")
	}
}

// phantoms are the events in Kafka that the table has not.
func (b *bed) phantoms(t *testing.T) (ids []string) {
	t.Helper()
	for _, records := range b.readTopic(t, b.Topic) {
		for _, record := range records {
			id := header(record, "ce_id")
			if query(t, b.db, `SELECT 1 FROM public.outbox WHERE id = $1::uuid`, id) == "" {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// copyTopic copies what read_committed consumers see to the cluster of another
// bed, as a mirror does.
func (b *bed) copyTopic(t *testing.T, records map[int32][]*kgo.Record) {
	t.Helper()
	client := b.Kafka.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, partition := range records {
		for _, record := range partition {
			copied := &kgo.Record{Topic: record.Topic, Partition: record.Partition, Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: record.Timestamp}
			if err := client.ProduceSync(ctx, copied).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestEveryHaltHasAWayOut demands a row in docs/recovery.md and a way out in each
// case, also of those that this run leaves out.
func TestEveryHaltHasAWayOut(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(relaytest.ModuleDir(t), "cdc", "docs", "recovery.md"))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{} // reason -> what the table says of it
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) == 6 {
			cases[strings.TrimSpace(cells[1])] = cells[2] + cells[4]
		}
	}
	for _, h := range halts() {
		if strings.TrimSpace(cases[string(h.reason)]) == "" {
			t.Errorf("docs/recovery.md has no way out of %s", h.reason)
		}
		if h.mend == nil && h.out == nil {
			t.Errorf("%s, %s: the case follows no way out", h.reason, h.name)
		}
	}
}
