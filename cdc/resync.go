package cdc

import "fmt"

// BeginResync returns the record with which a resync begins, and the pins that
// go with it: topics as they are now. seen is the highest generation of any
// position header in Kafka, for where no record tells it. The same attempt again
// keeps the generation: nothing has a position in it yet.
func BeginResync(kafka KafkaFacts, source SourceFacts, seen uint16) (PositionRecord, []TopicPin) {
	record := PositionRecord{Generation: seen}
	if kafka.Record != nil {
		record = *kafka.Record
		if !keepsFloor(&record, kafka, source) {
			record.PublishedFloor = nil
		}
	}
	if record.State != RecordResyncing {
		record.Generation = max(record.Generation, seen) + 1
		record.Attempt = 0
	}
	record.Version, record.State, record.Mode = PositionRecordVersion, RecordResyncing, ExactlyOnce
	record.SystemID, record.KafkaClusterID = source.SystemID, kafka.ClusterID
	record.Attempt++
	return record, pinAsNow(kafka)
}

// pinAsNow keeps the pin of a topic that is still the same one.
func pinAsNow(kafka KafkaFacts) []TopicPin {
	pins := []TopicPin{}
	for _, pin := range kafka.Pins {
		now, exists := kafka.Topics[pin.Topic]
		switch {
		case !exists:
		case CheckPin(pin, now) != nil:
			pins = append(pins, now.TopicPin)
		default:
			pin.Partitions = min(pin.Partitions, now.Partitions)
			pins = append(pins, pin)
		}
	}
	return pins
}

// EndResync returns the record with which streaming goes on: everything that was
// committed below the slot's consistent point is in Kafka, and the slot sends
// what was committed at it or behind it. facts were read while the slot was
// held, after it was made at point.
func EndResync(begun PositionRecord, source SourceFacts, point LSN) (PositionRecord, *Problem) {
	switch {
	case source.SystemID != begun.SystemID:
		return begun, halt(HaltOtherDatabase, fmt.Sprintf("the server has system id %s, the resync began with %s", source.SystemID, begun.SystemID), "the slot was made on another server", "make sure that postgres.dsn leads to one server, and run cdc-relay resync again")
	case source.Slot == nil || source.Slot.ConfirmedFlush != point:
		return begun, halt(HaltSlotMoved, fmt.Sprintf("the new slot does not stand at its consistent point %s any more", point), "somebody else used it", "stop every other replica, and run cdc-relay resync again")
	case source.Publication == nil || source.Table == nil:
		return begun, halt(HaltStreamChanged, "publication or table are gone", "nothing would come through the slot", "cdc-relay init, and run cdc-relay resync again")
	}
	record := begun
	standAt(&record, source, point)
	record.Publication, record.Table = source.Publication.PublicationIdentity, *source.Table
	record.Slot = source.Slot.Name
	return record, nil
}
