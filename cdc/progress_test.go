package cdc

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever happens in whatever order, an acknowledgement never exceeds what
// Kafka recorded or this connection received, never passes an owed row, never
// moves the slot back, and never falls.
func TestProgressInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lsn := rapid.Custom(func(t *rapid.T) LSN { return LSN(rapid.Uint64Range(1, 100).Draw(t, "lsn")) })
		slot := lsn.Draw(t, "slot")
		resume := Resume{RecordedLSN: max(slot, lsn.Draw(t, "recorded")), RecordFirst: rapid.Bool().Draw(t, "held")}
		p := newProgress(resume, slot)
		var received, recorded, confirmed LSN = 0, resume.RecordedLSN, 0
		held := resume.RecordFirst
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				l := lsn.Draw(t, "received")
				p.receivedTo(l)
				received = max(received, l)
			case 1:
				l := lsn.Draw(t, "recorded")
				p.recordedTo(l)
				recorded, held = max(recorded, l), false
			case 2:
				owed := LSN(rapid.Uint64Range(0, 100).Draw(t, "owed"))
				if owed != 0 && owed < confirmed {
					owed = confirmed // rows owed always lie behind what was acknowledged
				}
				next := p.nextConfirmed(owed)
				p.acceptConfirmed(next)
				switch {
				case next == 0:
					continue
				case held:
					t.Fatalf("acknowledged %s before a record on the server's timeline", next)
				case next > recorded || next > received:
					t.Fatalf("acknowledged %s beyond recorded %s or received %s", next, recorded, received)
				case owed != 0 && next > owed:
					t.Fatalf("acknowledged %s beyond the owed row at %s", next, owed)
				case next < slot || next < confirmed:
					t.Fatalf("acknowledged %s, slot %s, confirmed %s: it goes back", next, slot, confirmed)
				}
				confirmed = next
			}
		}
	})
}
