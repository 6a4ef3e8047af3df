package cdc

import "fmt"

// Resume says where a new life of the relay goes on.
type Resume struct {
	// RecordedLSN is the recorded mark, lowered to the switch point where the
	// server has left the recorded timeline.
	RecordedLSN LSN
	// Through is the last decided row: rows at or before it are skipped.
	Through Position
	// Witness must be re-sent by the server exactly as it was recorded; nil when
	// the server need not send it again.
	Witness *LastRow
	// RecordFirst: a record on the server's timeline must be committed before
	// anything is acknowledged, or a second failover could not be judged.
	RecordFirst bool
}

// Decide compares what Kafka recorded with what the server is, and either
// resumes or halts. The order of the findings is part of the contract: the
// first that applies names the way out. Both sides' facts must have been read
// after the slot was ours and the transactional ids were fenced.
//
// A timeline switch does not end the list: a slot that somebody made anew on
// the promoted server, or a changed stream, is found there as well.
//
// In mode at-least-once nothing but the slot says where to go on: no row is
// skipped, and a moved slot, a server behind and a divergence stay unseen.
func Decide(kafka KafkaFacts, source SourceFacts, mode Mode) (Resume, *Problem) {
	if problem := DecideIdentity(kafka, source, mode); problem != nil {
		return Resume{}, problem
	}
	if mode == AtLeastOnce {
		return Resume{RecordedLSN: source.Slot.ConfirmedFlush}, checkPublished(source)
	}
	record := kafka.Record
	resume := Resume{RecordedLSN: record.RecordedLSN, Through: record.Position()}
	switched, at, problem := compareLineage(record, source)
	if problem != nil {
		return Resume{}, problem
	}
	if switched {
		resume.RecordedLSN = min(resume.RecordedLSN, at)
		resume.RecordFirst = true
	} else if problem := checkServerReaches(record, source); problem != nil {
		return Resume{}, problem
	}
	if confirmed := source.Slot.ConfirmedFlush; confirmed > resume.RecordedLSN {
		return Resume{}, halt(HaltSlotMoved,
			fmt.Sprintf("slot %q stands at %s, beyond the recorded %s", source.Slot.Name, confirmed, resume.RecordedLSN),
			"the relay acknowledges only what Kafka has recorded, so the slot was advanced or made anew and rows in between may be lost",
			FixResync+"; where it was advanced on purpose: cdc-relay adopt --from-slot --confirm, and start again; then "+FixMissing)
	}
	if problem := checkStream(record, source); problem != nil {
		return Resume{}, problem
	}
	if last := record.LastRow; last != nil && last.Serial > 0 && source.Slot.ConfirmedFlush <= last.CommitLSN {
		resume.Witness = last
	}
	return resume, nil
}

// DecideIdentity finds what cannot be cured by waiting and does not compare
// LSNs, so that it may also be asked before the slot is ours: a misconfigured
// replica then disturbs nobody.
func DecideIdentity(kafka KafkaFacts, source SourceFacts, mode Mode) *Problem {
	problem := decideIdentity(kafka, source, mode)
	if problem != nil && mode == AtLeastOnce {
		problem.Fix = fixAtLeastOnce(problem)
	}
	return problem
}

func decideIdentity(kafka KafkaFacts, source SourceFacts, mode Mode) *Problem {
	record := kafka.Record
	if mode == AtLeastOnce && (record == nil || record.State == RecordInitialising) {
		return checkSlotUnrecorded(source)
	}
	switch {
	case record == nil:
		return halt(HaltPositionMissing, "the position topic holds no position record of this relay",
			"without it nobody knows which rows are in Kafka",
			"cdc-relay init --apply, if the relay is new; if it ran in mode at-least-once until now: cdc-relay adopt --from-slot --confirm; if its position topic was lost: "+FixResync)
	case record.State == RecordInitialising:
		return halt(HaltPositionMissing, "init began and has not finished", "the position record says initialising",
			"cdc-relay init --apply")
	case record.SystemID != source.SystemID:
		return halt(HaltOtherDatabase,
			fmt.Sprintf("the server has system id %s, the position record was written for %s", source.SystemID, record.SystemID),
			"positions of one database mean nothing in another",
			"point postgres.dsn at the recorded server; if this one has replaced it and no writer has begun yet: cdc-relay adopt --new-system --confirm; else: "+FixResync)
	case record.KafkaClusterID != "" && kafka.ClusterID != "" && record.KafkaClusterID != kafka.ClusterID:
		return halt(HaltOtherKafka,
			fmt.Sprintf("the cluster has id %s, the position record was written in %s", kafka.ClusterID, record.KafkaClusterID),
			"a copied position topic says nothing about the other topics of this cluster",
			"point kafka.brokers at the recorded cluster; if the topics were copied to this one: cdc-relay adopt --new-kafka --confirm, and start again; then "+FixMissing+"; else: "+FixResync)
	}
	for _, pin := range kafka.Pins {
		if problem := CheckPin(pin, kafka.Topics[pin.Topic]); problem != nil {
			return problem
		}
	}
	switch {
	case record.State == RecordResyncing:
		return halt(HaltResyncUnfinished, "a resync began and has not finished", "the position record says resyncing", FixResync)
	case record.Mode != mode && mode != AtLeastOnce: // rows may be repeated from now on, and that is what it promises
		return halt(HaltModeChanged, fmt.Sprintf("delivery is %s, the position record was written in mode %s", mode, record.Mode),
			"at-least-once leaves no proof of what is in Kafka",
			"set delivery: at-least-once again; or cdc-relay adopt --from-slot --confirm, which repeats rows that the slot has not seen acknowledged")
	case mode == AtLeastOnce:
		return checkSlotUnrecorded(source)
	}
	return checkSlot(source, "the server no longer keeps the WAL since the recorded position", FixResync)
}

// CheckPin compares a topic with its pin; a topic that does not exist (zero
// facts) may come back and is no finding.
func CheckPin(pin TopicPin, now TopicFacts) *Problem {
	if now.ID == "" || pin.ID == "" || now.ID == pin.ID {
		return nil
	}
	return halt(HaltTopicRecreated, fmt.Sprintf("topic %q was deleted and made again (id %s, recorded %s)", pin.Topic, now.ID, pin.ID),
		"the events recorded before are gone with the old topic", fmt.Sprintf("cdc-relay adopt --topic %s --confirm, and start again; then %s", pin.Topic, FixMissing))
}

// compareLineage says whether the server has left the recorded timeline, and
// at which LSN. Everything recorded must lie before that point.
func compareLineage(record *PositionRecord, source SourceFacts) (switched bool, at LSN, problem *Problem) {
	recorded, server := record.Lineage, source.Lineage
	if !recorded.prefixOf(server) {
		return false, 0, halt(HaltDiverged,
			fmt.Sprintf("the recorded timelines %v are no part of the server's history %v", recorded, server),
			"the server continues another history than the one that was published", FixResync)
	}
	if len(server) == len(recorded) {
		return false, 0, nil
	}
	// The lowest switch since then: a standby that lagged behind the first one
	// may have been promoted after it, and has left the recorded history earlier.
	at = server[len(recorded)-1].Switch
	for _, span := range server[len(recorded) : len(server)-1] {
		at = min(at, span.Switch)
	}
	last := record.LastRow
	if last == nil || (record.Complete && record.EndLSN <= at) || (!record.Complete && last.CommitLSN < at) {
		return true, at, nil
	}
	return true, at, halt(HaltDiverged,
		fmt.Sprintf("the server left timeline %d at %s, the last row in Kafka was committed at %s", record.Timeline(), at, last.CommitLSN),
		fmt.Sprintf("events of commits between %s and %s are in Kafka but no longer in the database", at, last.CommitLSN),
		"cdc-relay adopt --accept-divergence --confirm, which lists these events and goes on without them")
}

// prefixOf says whether every recorded switch happened on the server just so,
// and the recorded timeline is the server's or one that the server came from.
func (l Lineage) prefixOf(server Lineage) bool {
	if len(l) == 0 || len(l) > len(server) {
		return false
	}
	last := len(l) - 1
	for i := range last {
		if l[i] != server[i] {
			return false
		}
	}
	return l[last].Timeline == server[last].Timeline
}

func checkServerReaches(record *PositionRecord, source SourceFacts) *Problem {
	last := record.LastRow
	if last == nil {
		return nil
	}
	end := last.CommitLSN + 1 // where a commit record begins, the WAL does not end
	if record.Complete {
		end = record.EndLSN
	}
	if end <= source.WALEnd {
		return nil
	}
	return halt(HaltServerBehind, fmt.Sprintf("the server's WAL ends at %s, Kafka has rows up to %s", source.WALEnd, end),
		"the server was restored from an older copy or lost WAL in a crash", FixResync)
}

// checkSlotUnrecorded judges the slot where it is all that is known.
func checkSlotUnrecorded(source SourceFacts) *Problem {
	const fix = "if the relay is new: cdc-relay init --apply; else make the slot anew (pg_drop_replication_slot where there is one, pg_create_logical_replication_slot(postgres.slot, 'pgoutput')), and start again; then " + FixMissing
	return checkSlot(source, "in mode at-least-once only the slot says where to go on; a new one passes over what was committed before", fix)
}

// checkSlot finds that there is no slot to go on from; why says what that means.
func checkSlot(source SourceFacts, why, fix string) *Problem {
	switch slot := source.Slot; {
	case slot == nil:
		return halt(HaltSlotLost, "the replication slot does not exist", why, fix)
	case slot.Lost():
		return halt(HaltSlotLost, fmt.Sprintf("slot %q is lost (wal_status %s, %s)", slot.Name, slot.WALStatus, slot.InvalidationReason),
			"the server removed WAL that the slot still needed", fix+"; raise max_slot_wal_keep_size before")
	}
	return nil
}

// checkPublished finds what no record is needed for.
func checkPublished(source SourceFacts) *Problem {
	if source.Publication != nil && source.Table != nil {
		return nil
	}
	return halt(HaltStreamChanged, "the publication no longer publishes the outbox table", "rows inserted meanwhile are not streamed",
		"cdc-relay init --apply, and start again; then "+FixMissing)
}

func checkStream(record *PositionRecord, source SourceFacts) *Problem {
	const fix = FixStream
	switch {
	case source.Publication == nil:
		return halt(HaltStreamChanged, fmt.Sprintf("publication %q no longer publishes table %s", record.Publication.Name, record.Table.Name),
			"rows inserted meanwhile are not streamed", fix)
	case source.Publication.PublicationIdentity != record.Publication:
		return halt(HaltStreamChanged, fmt.Sprintf("publication %q was altered or made again", record.Publication.Name),
			fmt.Sprintf("recorded %+v, now %+v; rows inserted meanwhile may be missing from the stream", record.Publication, source.Publication.PublicationIdentity), fix)
	case source.Table == nil || source.Table.OID != record.Table.OID:
		return halt(HaltStreamChanged, fmt.Sprintf("table %s was dropped and made again", record.Table.Name),
			"the new table's rows may be missing from the stream", fix)
	}
	return nil
}

func halt(reason HaltReason, what, why, fix string) *Problem {
	return &Problem{Treatment: Halt, Reason: reason, What: what, Why: why, Fix: fix}
}
