// Package outbox is what an application imports to publish events with
// cdc-relay, and nothing more: it inserts an event into the outbox table in the
// application's own transaction.
//
//	tx, err := pool.Begin(ctx)
//	...
//	id, err := outbox.Insert(ctx, tx, outbox.Event{
//		AggregateType: "payment",
//		AggregateID:   reservationID,
//		Type:          "payment.completed.v1",
//		Payload:       payload,
//	})
//	...
//	err = tx.Commit(ctx)
//
// # Guarantees
//
//   - The event is published if and only if the transaction commits.
//   - INSERT on the table is the only right that it needs. There is no RETURNING,
//     which would take SELECT: the event id is made here, a UUIDv7.
//   - The payload is stored as it is in a jsonb, json, text or bytea column (a
//     jsonb column normalises white space and key order).
//   - An event that the relay would refuse in every format, for want of a field
//     or for a header that the relay sets itself, is refused before it is sent.
//   - Columns that the event does not need are not named: the table may lack
//     headers and created_at as long as no event has any.
//
// # What it does not do
//
// It opens no connection and no transaction, retries nothing, and does not know
// which topics the relay is allowed to write to. A W3C trace context is a header
// that the caller sets: traceparent. The columns have the names of the default
// table; the table's name is free (Table).
package outbox
