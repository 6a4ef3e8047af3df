package kafka

import (
	"encoding/json"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// A command record is in the transaction of its position, under a key of its own,
// and nobody takes it for a position or for pins.
func TestCommandRecord(t *testing.T) {
	brokers := anyBrokers(t)
	cfg := testConfig(brokers)
	s := ready(t, cfg)
	p, _ := open(t, s)
	b := batch(0x100, "")
	b.Command = &cdc.CommandRecord{Version: 1, ID: "one", Command: "adopt --stream", Reason: cdc.HaltStreamChanged, Does: []string{"something"}}
	publish(t, p, b)
	publish(t, p, batch(0x200, ""))

	var keys []string
	for _, record := range visible(t, brokers, cfg.PositionTopic) {
		keys = append(keys, string(record.Key))
		if string(record.Key) != commandKey(cfg.Relay, "one") {
			continue
		}
		var told cdc.CommandRecord
		if err := json.Unmarshal(record.Value, &told); err != nil || told.Command != "adopt --stream" || told.Reason != cdc.HaltStreamChanged {
			t.Errorf("the command record says %s, %v", record.Value, err)
		}
	}
	want := []string{pinsKey(cfg.Relay), cfg.Relay + "/command/one", cfg.Relay, cfg.Relay}
	if len(keys) != len(want) {
		t.Fatalf("keys %v, want %v", keys, want)
	}
	for i := range want {
		if keys[i] != want[i] {
			t.Errorf("key %d is %s, want %s", i, keys[i], want[i])
		}
	}
	if _, facts := open(t, s); recordedLSN(facts) != 0x200 || len(facts.Pins) != 0 {
		t.Errorf("the next life reads %+v", facts)
	}
}
