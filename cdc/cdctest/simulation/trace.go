package simulation

import (
	"fmt"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

var actionNames = [...]string{
	cdc.ActionNone: "none", cdc.ActionInspect: "inspect", cdc.ActionAdvise: "advise", cdc.ActionAttach: "attach",
	cdc.ActionOpen: "open", cdc.ActionFacts: "facts", cdc.ActionTopic: "topic", cdc.ActionPublish: "publish", cdc.ActionClose: "close",
}

var inputNames = [...]string{
	cdc.InputTick: "tick", cdc.InputInspected: "inspected", cdc.InputAdvised: "advised", cdc.InputAttached: "attached",
	cdc.InputOpened: "opened", cdc.InputFacts: "facts", cdc.InputTopic: "topic", cdc.InputPublished: "published",
	cdc.InputClosed: "closed", cdc.InputMessage: "message", cdc.InputStreamLost: "stream lost", cdc.InputStop: "stop",
}

func describeInput(in *cdc.Input) string {
	s := inputNames[in.Kind]
	switch {
	case in.Err != nil:
		s += ", " + in.Err.Error()
	case in.Kind == cdc.InputOpened || in.Kind == cdc.InputAdvised:
		s += ", newest " + describePosition(in.Kafka.Record)
	case in.Kind == cdc.InputFacts && in.Source.Slot != nil:
		s += fmt.Sprintf(", slot at %s, WAL end %s, timeline %d", in.Source.Slot.ConfirmedFlush, in.Source.WALEnd, in.Source.Timeline)
	}
	return s
}

func describeEffects(eff *cdc.Effects) string {
	var what []string
	if eff.Status {
		what = append(what, "status "+eff.Confirm.String())
	}
	if eff.Action != cdc.ActionNone {
		s := actionNames[eff.Action]
		if eff.Batch != nil {
			s += " events"
			for i := range eff.Batch.Records {
				s += fmt.Sprintf(" %d", eventOf(eff.Batch.Records[i].Value))
			}
			s += ", position " + describePosition(eff.Batch.Position)
		}
		what = append(what, s)
	}
	if eff.Transition != nil {
		what = append(what, "state "+string(eff.Transition.To))
	}
	if eff.Finished {
		what = append(what, "finished")
	}
	if eff.Problem != nil {
		what = append(what, eff.Problem.Error())
	}
	if len(what) == 0 {
		return "nothing"
	}
	return strings.Join(what, "; ")
}

func describePosition(record *cdc.PositionRecord) string {
	if record == nil {
		return "none"
	}
	return fmt.Sprintf("%s complete %t recorded %s timeline %d", record.Position(), record.Complete, record.RecordedLSN, record.Timeline())
}

func describeMessage(m *cdc.Message) string {
	switch m.Kind {
	case cdc.MessageBegin:
		return fmt.Sprintf("BEGIN xid %d at %s", m.XID, m.CommitLSN)
	case cdc.MessageInsert:
		return fmt.Sprintf("INSERT event %d", eventOf(m.Row.EventID))
	case cdc.MessageCommit:
		return fmt.Sprintf("COMMIT at %s, end %s", m.CommitLSN, m.EndLSN)
	}
	return fmt.Sprintf("keepalive %s, reply requested %t", m.WALEnd, m.ReplyRequested)
}
