package main

import (
	"context"
	"fmt"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// In mode at-least-once a new relay needs publication and slot only: no position
// is kept, so there is no first one and nothing that has to agree.

func (g *genesis) atLeastOnce() bool { return cdc.Mode(g.c.Delivery) == cdc.AtLeastOnce }

// plan decides by what exists, or refuses with the way out.
func (g *genesis) plan(facts *cdc.SourceFacts, record *cdc.PositionRecord) (plan, *cdc.Problem) {
	if g.atLeastOnce() {
		return planAtLeastOnce(g.c.Relay, facts, g.c.Postgres.Slot, record)
	}
	return planGenesis(g.c.Relay, facts, g.c.Postgres.Slot, record)
}

// planAtLeastOnce makes a slot where there is none, unless a position record
// tells that the relay had one.
func planAtLeastOnce(relay string, facts *cdc.SourceFacts, slotName string, record *cdc.PositionRecord) (plan, *cdc.Problem) {
	slot := facts.Slot
	switch {
	case record != nil && record.State != cdc.RecordInitialising && (slot == nil || record.SystemID != facts.SystemID):
		return planGenesis(relay, facts, slotName, record)
	case slot == nil:
		return planFresh, nil
	case slot.Lost() || slot.Plugin != "pgoutput":
		return planNone, &cdc.Problem{
			Treatment: cdc.Halt, Reason: cdc.HaltSlotLost,
			What: fmt.Sprintf("slot %q cannot be used", slotName), Why: "it is lost or of another plugin",
			Fix: fmt.Sprintf("drop the slot with SELECT pg_drop_replication_slot('%s'), run init again, and start; then %s", slotName, cdc.FixMissing),
		}
	}
	return planNone, nil
}

func (g *genesis) applyAtLeastOnce(ctx context.Context, tell func(step)) error {
	if err := g.topics(ctx, tell); err != nil {
		return err
	}
	if err := g.publication(ctx, tell); err != nil {
		return err
	}
	slot, err := g.createSlot(ctx)
	if err != nil {
		return err
	}
	slot.Release()
	tell(stepOf("slot "+g.c.Postgres.Slot, !slot.AlreadyThere))
	return nil
}
