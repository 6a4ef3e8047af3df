package cdc

import "fmt"

// Adoption is what an adopt command is about to record: the world as it is now,
// where a person says that it is to be taken so.
type Adoption struct {
	// Finding is the halt that it ends; nil where nothing is to be adopted, so that
	// a command may be repeated.
	Finding *Problem
	Record  PositionRecord
	Pins    []TopicPin // nil: as they were
	Does    []string   // in words, for the person and for the command record
	// Doubtful says which positions of Kafka's records are in doubt; nil: none is.
	Doubtful func(Position) bool
	// Left is what a start would find after it; nil: it streams.
	Left *Problem
}

// finish says what is left to do after the adoption.
func (a *Adoption) finish(kafka KafkaFacts, source SourceFacts) *Adoption {
	kafka.Record = &a.Record
	if a.Pins != nil {
		kafka.Pins = a.Pins
	}
	_, a.Left = Decide(kafka, source, ExactlyOnce)
	return a
}

// nothingToAdopt is the answer where a start would find nothing to complain of.
func nothingToAdopt(kafka KafkaFacts) *Adoption { return &Adoption{Record: *kafka.Record} }

// findingOf returns what a start would find, if it is one of the reasons; any
// other finding comes first and has its own way out.
func findingOf(kafka KafkaFacts, source SourceFacts, reasons ...HaltReason) (finding, other *Problem) {
	_, problem := Decide(kafka, source, ExactlyOnce)
	if problem == nil {
		return nil, nil
	}
	for _, reason := range reasons {
		if problem.Reason == reason {
			return problem, nil
		}
	}
	return nil, problem
}

// AdoptStream takes publication and table as they are now. What was committed
// between the change and now may never come through the stream.
func AdoptStream(kafka KafkaFacts, source SourceFacts) (*Adoption, *Problem) {
	finding, other := findingOf(kafka, source, HaltStreamChanged)
	if other != nil {
		return nil, other
	}
	if finding == nil {
		return nothingToAdopt(kafka), nil
	}
	if source.Publication == nil || source.Table == nil {
		return nil, finding // to be made first
	}
	a := &Adoption{Finding: finding, Record: *kafka.Record}
	a.Record.PublishedFloor = nil // rows that the publication missed have ids below any other
	a.Record.Publication, a.Record.Table = source.Publication.PublicationIdentity, *source.Table
	a.Does = []string{
		fmt.Sprintf("takes publication %q and table %s as they are now", a.Record.Publication.Name, a.Record.Table.Name),
		fmt.Sprintf("goes on behind row %s; rows that the publication missed stay missing until cdc-relay audit finds and cdc-relay backfill publishes them", a.Record.Position()),
	}
	return a.finish(kafka, source), nil
}

// AdoptTopic takes a topic that was deleted and made again.
func AdoptTopic(kafka KafkaFacts, source SourceFacts, topic Topic) (*Adoption, *Problem) {
	finding, other := findingOf(kafka, source, HaltTopicRecreated)
	if other != nil {
		return nil, other
	}
	a := &Adoption{Record: *kafka.Record, Pins: append([]TopicPin(nil), kafka.Pins...)}
	for i := range a.Pins {
		if a.Pins[i].Topic != topic {
			continue
		}
		now := kafka.Topics[topic]
		if a.Finding = CheckPin(a.Pins[i], now); a.Finding == nil {
			return nothingToAdopt(kafka), nil
		}
		a.Pins[i] = now.TopicPin
		a.Record.PublishedFloor = nil // what the old topic had is nowhere now
		a.Does = []string{
			fmt.Sprintf("takes topic %q as it is now, with %d partitions", topic, now.Partitions),
			"goes on behind what was recorded; what the old topic had is not in the new one until cdc-relay audit finds and cdc-relay backfill publishes it",
		}
		return a.finish(kafka, source), nil
	}
	if finding == nil {
		finding = &Problem{Treatment: Halt, Reason: HaltTopicRecreated}
	}
	return nil, halt(HaltTopicRecreated, fmt.Sprintf("topic %q is none that the relay has used", topic),
		"only a topic that was used can have been made again", "name the topic of the halt; "+finding.Fix)
}

// AdoptPartitions places keys over the partitions that topics have now. Keys
// move, so a consumer may read a key's newer events before its older ones.
func AdoptPartitions(kafka KafkaFacts, source SourceFacts) (*Adoption, *Problem) {
	if _, other := findingOf(kafka, source); other != nil {
		return nil, other
	}
	a := &Adoption{Record: *kafka.Record, Pins: append([]TopicPin(nil), kafka.Pins...)}
	for i := range a.Pins {
		pin := &a.Pins[i]
		now := kafka.Topics[pin.Topic].Partitions
		if now <= pin.Partitions {
			continue
		}
		a.Does = append(a.Does, fmt.Sprintf("places the keys of topic %q over %d partitions instead of %d: the order of a key that moves holds only for consumers that have read the older events", pin.Topic, now, pin.Partitions))
		a.Finding = &Problem{What: "topics have more partitions than keys are placed over"}
		pin.Partitions = now
	}
	if a.Finding == nil {
		return nothingToAdopt(kafka), nil
	}
	return a.finish(kafka, source), nil
}

// AdoptKafka takes another cluster to which the topics were copied. Whoever calls
// it refuses where the copies of the topics have records of Doubtful positions:
// the copied position is then older than they are, and rows would come again.
func AdoptKafka(kafka KafkaFacts, source SourceFacts) (*Adoption, *Problem) {
	finding, other := findingOf(kafka, source, HaltOtherKafka)
	if other != nil {
		return nil, other
	}
	if finding == nil {
		return nothingToAdopt(kafka), nil
	}
	a := &Adoption{Finding: finding, Record: *kafka.Record}
	a.Record.KafkaClusterID = kafka.ClusterID
	a.Record.PublishedFloor = nil // what was not copied is missing
	a.Pins = pinAnew(kafka)
	a.Does = []string{
		fmt.Sprintf("takes the cluster %s instead of %s, and its topics as they are", kafka.ClusterID, kafka.Record.KafkaClusterID),
		fmt.Sprintf("goes on behind row %s; what was not copied stays missing until cdc-relay audit finds and cdc-relay backfill publishes it", a.Record.Position()),
	}
	a.Doubtful = beyond(kafka.Record.Position())
	return a.finish(kafka, source), nil
}

// pinAnew pins the topics that exist, wherever they are now. A copy with more
// partitions keeps keys where they were.
func pinAnew(kafka KafkaFacts) []TopicPin {
	pins := []TopicPin{}
	for _, pin := range kafka.Pins {
		now, exists := kafka.Topics[pin.Topic]
		if !exists {
			continue // it is pinned when it is first used
		}
		pins = append(pins, TopicPin{Topic: pin.Topic, ID: now.ID, Partitions: min(pin.Partitions, now.Partitions)})
	}
	return pins
}

// beyond holds for the positions of the generation that lie behind p.
func beyond(p Position) func(Position) bool {
	return func(at Position) bool { return at.Generation == p.Generation && at.Compare(p) > 0 }
}

// AdoptSlot goes on where the slot stands, whatever was recorded. Rows in
// between are repeated or passed over. Without any record it makes one.
func AdoptSlot(kafka KafkaFacts, source SourceFacts) (*Adoption, *Problem) {
	finding, other := findingOf(kafka, source, HaltModeChanged, HaltSlotMoved, HaltPositionMissing)
	if other != nil {
		return nil, other
	}
	if finding == nil {
		return nothingToAdopt(kafka), nil
	}
	if kafka.Record != nil && kafka.Record.State == RecordInitialising {
		return nil, finding
	}
	if source.Slot == nil || source.Publication == nil || source.Table == nil {
		return nil, halt(HaltSlotLost, "slot, publication or table do not exist", "there is nothing to go on from", "cdc-relay init --apply")
	}
	at := source.Slot.ConfirmedFlush
	a := &Adoption{Finding: finding, Record: PositionRecord{Version: PositionRecordVersion, Generation: 1, Publication: source.Publication.PublicationIdentity, Table: *source.Table}}
	if kafka.Record != nil {
		a.Record = *kafka.Record
	}
	recorded, position := a.Record.RecordedLSN, a.Record.Position()
	if finding.Reason != HaltSlotMoved { // rows may be published again, and no position header may say so
		a.Record.Generation++
	}
	standAt(&a.Record, source, at)
	a.Record.KafkaClusterID = kafka.ClusterID
	a.Does = []string{fmt.Sprintf("goes on where slot %q stands, at %s", source.Slot.Name, at)}
	if finding.Reason == HaltSlotMoved {
		a.Does = append(a.Does, fmt.Sprintf("passes over what was committed between %s and %s; rows in there stay missing until cdc-relay audit finds and cdc-relay backfill publishes them", recorded, at))
	} else {
		a.Does = append(a.Does, fmt.Sprintf("publishes again what was committed from %s on and is in Kafka already", at))
		position.CommitLSN, position.Serial = at, 0
		a.Doubtful = beyond(position)
	}
	return a.finish(kafka, source), nil
}

// standAt makes the record say that everything before the LSN is decided and
// nothing behind it. The floor goes with the row that it stands on.
func standAt(record *PositionRecord, source SourceFacts, at LSN) {
	record.Version, record.State, record.Mode = PositionRecordVersion, RecordRunning, ExactlyOnce
	record.SystemID, record.Lineage = source.SystemID, source.Lineage
	record.RecordedLSN, record.EndLSN, record.IdleLSN = at, at, at
	record.LastRow, record.Complete = &LastRow{CommitLSN: at}, true
	record.Attempt, record.PublishedFloor = 0, nil
}

// AdoptDivergence goes on at the point where the server left the recorded
// timeline, although rows behind that point are in Kafka. The generation grows:
// the server gives the LSNs from there on to other commits.
func AdoptDivergence(kafka KafkaFacts, source SourceFacts) (*Adoption, *Problem) {
	finding, other := findingOf(kafka, source, HaltDiverged)
	if other != nil {
		return nil, other
	}
	if finding == nil {
		return nothingToAdopt(kafka), nil
	}
	switched, at, _ := compareLineage(kafka.Record, source)
	if !switched {
		return nil, finding
	}
	a := &Adoption{Finding: finding, Record: *kafka.Record}
	last, generation := kafka.Record.LastRow, kafka.Record.Generation
	recorded := min(kafka.Record.RecordedLSN, at)
	standAt(&a.Record, source, at)
	a.Record.RecordedLSN, a.Record.IdleLSN = recorded, recorded
	a.Record.Generation++
	a.Does = []string{
		fmt.Sprintf("takes the history that left timeline %d at %s, and goes on there as generation %d", kafka.Record.Timeline(), at, a.Record.Generation),
		fmt.Sprintf("leaves in Kafka what was published of commits between %s and %s, which the database has not", at, last.CommitLSN),
	}
	// A commit record that the switch cuts begins before it and is gone as well.
	a.Doubtful = func(p Position) bool {
		return p.Generation == generation && (p.CommitLSN >= at || p.CommitLSN == last.CommitLSN)
	}
	return a.finish(kafka, source), nil
}
