package simulation

import (
	"fmt"
	"strings"
)

// Rare numbers a state of the world that random schedules must reach: a check
// that holds because its danger never came proves nothing.
type Rare int

// The rare states.
const (
	RareZombieRefused Rare = iota
	RareUnknownCommitted
	RareUnknownAborted
	RareSlotWentBack
	RareCutInside
	RareTakeoverInside
	RareTimelineNoLoss
	RareTimelineLoss
	RareDoubledEnd
	RareDoubledEndRefused
	RareWitnessConfirmed
	RareWitnessCaught
	RareNewRowBelowRecorded
	RareTimelineForked
	RareHaltDiverged
	RareHaltServerBehind
	RareHaltStreamChanged
	RareHaltSlotMoved
	RareHaltSlotLost
	RareStandbyTookOver
	RareUndecidedAtOpen
	RareFormerFenced
	RareShutdownSeen
	RareDrained
	RareLimitsHalved
	RareLateInit
	RareFloorNear
	rareCount
)

var rareNames = [rareCount]string{
	RareZombieRefused:       "zombie refused (produce or EndTxn with an old epoch)",
	RareUnknownCommitted:    "outcome unknown, and committed",
	RareUnknownAborted:      "outcome unknown, and aborted",
	RareSlotWentBack:        "slot went back",
	RareCutInside:           "batch cut inside a transaction",
	RareTakeoverInside:      "takeover inside a transaction, skipped by serial",
	RareTimelineNoLoss:      "timeline change without loss, recorded",
	RareTimelineLoss:        "timeline change with loss, recorded",
	RareDoubledEnd:          "EndTxn sent twice, taken as unknown (v1)",
	RareDoubledEndRefused:   "doubled EndTxn came late and was refused (v1)",
	RareWitnessConfirmed:    "witness confirmed",
	RareWitnessCaught:       "witness caught a divergence",
	RareNewRowBelowRecorded: "new row below the recorded LSN caught",
	RareTimelineForked:      "promoted standby never followed the recorded timeline",
	RareHaltDiverged:        "halt diverged",
	RareHaltServerBehind:    "halt server-behind",
	RareHaltStreamChanged:   "halt stream-changed",
	RareHaltSlotMoved:       "halt slot-moved",
	RareHaltSlotLost:        "halt slot-lost",
	RareStandbyTookOver:     "standby took over",
	RareUndecidedAtOpen:     "LSO below HWM seen at open",
	RareFormerFenced:        "id of the newest record fenced that is not configured",
	RareShutdownSeen:        "server shut down in good order",
	RareDrained:             "batch committed after the stream was lost",
	RareLimitsHalved:        "limits halved after a transaction timeout",
	RareLateInit:            "InitProducerId came late and fenced its successor",
	RareFloorNear:           "row missing right above the published floor",
}

// Rares lists every rare state.
func Rares() []Rare {
	all := make([]Rare, rareCount)
	for i := range all {
		all[i] = Rare(i)
	}
	return all
}

func (r Rare) String() string { return rareNames[r] }

// Stats are sums over schedules.
type Stats struct {
	Schedules, Steps, Records, Halted int
	Rare                              [rareCount]int
}

func (s *Stats) add(other *Stats) {
	s.Schedules += other.Schedules
	s.Steps += other.Steps
	s.Records += other.Records
	s.Halted += other.Halted
	for i, n := range other.Rare {
		s.Rare[i] += n
	}
}

// String is a table for people.
func (s *Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d schedules, %d steps, %d records visible, %d schedules ended in a halt\n", s.Schedules, s.Steps, s.Records, s.Halted)
	for i, n := range s.Rare {
		fmt.Fprintf(&b, "%10d  %s\n", n, Rare(i))
	}
	return b.String()
}
