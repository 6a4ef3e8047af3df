// Package event is the contract between the payment service and whoever
// consumes its events. It is the standard library only, so that any consumer
// can import it.
//
// One event tells how one payment ended. It is a record of the topic
// payment-event, keyed by the reservation id: the payments of one reservation
// (failed, tried again, completed) arrive in the order in which they happened.
// The event's type is in the header ce_type, its id in ce_id; a consumer that
// must act once remembers ce_id.
//
// # Guarantees
//
//   - Encode writes nothing that Decode refuses.
//   - Within one version of a type, fields are only ever added; Decode ignores
//     what it does not know and insists on what it does. A change that breaks
//     readers is a new type: payment.completed.v2.
//   - The JSON Schemas and asyncapi.yaml beside this file say the same for
//     other languages; a test compares them with this package.
//
// # What it does not do
//
// It knows no Kafka client and no CloudEvents library; it reads and writes the
// value of a record.
package event
