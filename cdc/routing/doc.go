// Package routing turns a row of the outbox into the record that is produced
// to Kafka: topic, key, value, headers and timestamp.
//
// # Guarantees
//
//   - It is pure: same configuration and same row, same record. No clock, no
//     socket, no logger, no goroutine.
//   - Payload bytes pass through untouched. (A bytea payload is the bytes that
//     the column holds, not the hex form in which the WAL stream prints them.)
//   - Placement is a function of the key alone, so rows with one key meet in one
//     partition. A null key is placed by the aggregate id, then by the event id,
//     never round-robin.
//   - A topic that is not allowed, a column that is missing, a header that the
//     relay sets itself: each is a bad row with the event id, the position and a
//     way out. Nothing is replaced, shortened or left out in silence.
//
// # Formats
//
//   - cloudevents: CloudEvents 1.0, binary mode of the Kafka protocol binding.
//     Attributes are headers ce_*, the value is the payload.
//   - cloudevents-structured: the event as one JSON document; the attributes are
//     headers too, so that every tool finds the event id in one place.
//   - raw: the value is the payload; headers id and type.
//   - debezium: what Debezium's Outbox Event Router produces with its default
//     converters (StringConverter, SimpleHeaderConverter), configured by its own
//     option names.
//
// # What it does not do
//
// It chooses no partition: it names the bytes that are hashed, and the relay
// knows the pinned partition count. It does not replace old commit times, since
// it has no clock. It parses no payload, but for checking that a text payload
// declared as JSON may stand in a structured event.
package routing
