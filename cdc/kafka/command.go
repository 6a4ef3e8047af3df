package kafka

import (
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// commandKey is the key of what a command wrote about itself. No two are equal,
// so compaction keeps them all.
func commandKey(relay, id string) string { return relay + "/command/" + id }

// appendCommand adds the command record, if there is one, before the position.
func (p *publisher) appendCommand(command *cdc.CommandRecord) error {
	if command == nil {
		return nil
	}
	value, err := command.Marshal()
	if err != nil {
		return fmt.Errorf("encode command record: %w", err)
	}
	p.appendPosition(commandKey(p.sink.cfg.Relay, command.ID), value)
	return nil
}
