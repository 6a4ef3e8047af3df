// Package payment is the payment service of a seat reservation: a user pays for
// one or more reservations in one request, and every payment becomes an event
// through the outbox. It is the example of an application beside cdc-relay, and
// complete enough to be run.
//
//	payment.go      the domain: reservations, payments, and the decision
//	service.go      the use cases: pay, users, charges, reservations
//	transaction.go  one database transaction, repeated when the server asks for it
//	idempotency.go  the stored answer to a request, in the same transaction
//	store.go        statements that change; read.go statements that look
//	http.go         routes; request.go and answer.go the bodies; problem.go RFC 9457
//	migrate.go      the tables
//	event/          the contract with consumers
//
// # Guarantees
//
//   - One POST of payments is one transaction: payments, balances, history, one
//     outbox event per payment and the stored answer are there together or not
//     at all.
//   - A technical failure of one payment undoes only its own work (a savepoint)
//     and ends as FAILED with the code internal.
//   - A reservation has at most one COMPLETED payment and a balance is never
//     negative; locks are taken in a fixed order, and constraints say the same.
//   - A request repeated with its Idempotency-Key has its first answer.
//   - The service needs INSERT on the outbox and no other right there.
//
// # What it does not do
//
// It knows no Kafka. Its readiness looks at the database alone, so that nothing
// behind the outbox can take payments out of service. Reservations are made and
// cancelled by other systems in real life; the routes for users, charges and
// reservations are what a test or a demo needs to begin. API keys name programs,
// not people: whoever has one may pay for every user.
package payment
