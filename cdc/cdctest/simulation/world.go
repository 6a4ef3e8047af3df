package simulation

import (
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Model says in what way the stand-in for the publisher is broken; the zero
// value is sound. It serves to prove that the checks are sharp.
type Model struct {
	TakesUnknownAsAborted bool // fences its own id and publishes the batch again
	ReadsBeforeFencing    bool
	GivesUpEarly          bool // takes the newest record that it was served, without a proof that it is the end
	TrustsDoubledEnd      bool // takes a doubled EndTxn under transactions v1 as a success
	SkipsPromises         bool // commits when the first promise is nil
	FencesOwnIDsOnly      bool // not those that the newest record names
}

const (
	genesisLSN = cdc.LSN(0x1000)
	genesisXID = cdc.XID(700)
	// stepDuration passes with each step; waiting is done by jumps of the clock.
	stepDuration = 5 * time.Millisecond
)

// World is everything around the relays. It is used for one schedule after
// another and belongs to one goroutine.
type World struct {
	choices
	*fixed
	plan  plan
	model Model
	calm  bool // faults have stopped, nothing is chosen any more
	now   time.Time
	epoch time.Time

	events []event
	txs    []dbTransaction
	sLen   [parts]int32 // length of each partition's part of S
	pg     postgres
	table  cdc.TableIdentity

	connections []*connection // reused; the first connected of them are of this schedule
	connected   int

	kafka           brokers
	network         []request
	publishers      int32
	newestPublisher [ids]int32

	replicas [2]replica
	launched int

	// What the checks know.
	newest         *cdc.PositionRecord // of the decided ones
	owed           int                 // of history: the first transaction not wholly in Kafka
	phantoms       int                 // rows in Kafka that the database has lost
	restored       bool
	restoredAt     cdc.LSN
	recordedBeyond bool // more was recorded than the restored copy had
	forked         bool // a timeline was abandoned that was followed
	tampered       bool // somebody advanced the slot beyond what was recorded
	halved         bool
	publication    cdc.PublicationIdentity // at genesis
	violation      *Violation

	steps   int
	stats   Stats
	tracing bool
	trace   []string
}

// NewWorld returns a world for any number of schedules.
func NewWorld(model Model) *World {
	w := &World{
		fixed: newFixed(), model: model,
		epoch:       time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		table:       cdc.TableIdentity{Name: "public.outbox", OID: 5},
		publication: cdc.PublicationIdentity{Name: "p", OID: 1, XMin: 2, RelOID: 3, RelXMin: 4, ViaRoot: true},
	}
	w.replicas[0] = replica{index: 0, name: "A"}
	w.replicas[1] = replica{index: 1, name: "B"}
	return w
}

func (w *World) reset() {
	w.calm, w.now, w.steps = false, w.epoch, 0
	w.events, w.txs, w.sLen = w.events[:0], w.txs[:0], [parts]int32{}
	w.connected, w.network, w.publishers, w.launched = 0, w.network[:0], 0, 0
	w.newestPublisher = [ids]int32{}
	w.owed, w.phantoms, w.restored, w.recordedBeyond, w.forked, w.tampered, w.halved = 0, 0, false, false, false, false, false
	w.violation, w.trace = nil, nil
	w.pg = postgres{
		up: true, lineage: cdc.Lineage{{Timeline: 1}}, walEnd: genesisLSN, nextXID: genesisXID, history: w.pg.history[:0],
		slot: slot{exists: true, confirmed: genesisLSN, persisted: genesisLSN, synced: genesisLSN}, publication: w.publication,
	}
	w.drawPlan()
	genesis := &cdc.PositionRecord{
		Version: 1, State: cdc.RecordRunning, Mode: cdc.ExactlyOnce, Generation: 1, SystemID: "7", Lineage: w.pg.lineage,
		RecordedLSN: genesisLSN, Complete: true, Slot: "s", Publication: w.publication, Table: w.table, KafkaClusterID: "k", At: w.now,
	}
	for i := range w.replicas[:w.plan.replicas] {
		w.replicas[i].ids = w.pickIDs()
	}
	genesis.TransactionalIDs = w.replicas[0].ids
	w.newest = genesis
	w.kafka.reset(genesis)
	for i := range w.replicas {
		w.replicas[i] = replica{index: w.replicas[i].index, name: w.replicas[i].name, ids: w.replicas[i].ids}
	}
	for i := range w.replicas[:w.plan.replicas] {
		w.launch(&w.replicas[i])
	}
}

func (w *World) rare(r Rare) {
	w.stats.Rare[r]++
	if w.tracing {
		w.log("-- rare: %s", r)
	}
}

func (w *World) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%4d %6s  ", w.steps, w.now.Sub(w.epoch).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}
