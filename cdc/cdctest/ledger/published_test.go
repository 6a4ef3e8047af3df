package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/ledger"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// insertToFlush bounds how long the insert LSN may stand before the flushed WAL
// that is streamed: records that no commit waits for, such as those of pruning,
// leave with the server's running-transactions record every 15 s.
const insertToFlush = time.Minute

// seenWithin is how long a consumer may take on a busy machine. An idle relay
// records every 10 s, and that transaction must not be what pushes the row out.
const seenWithin = 8 * time.Second

// TestPublishedProperty: once /published says yes to the insert LSN of a moment
// after a commit, a read_committed consumer sees the row although nothing
// further happens: no other row and no other transaction pushes it out.
func TestPublishedProperty(t *testing.T) {
	e := environment(t, relaytest.Build(t), "")
	client := e.Kafka.Client(t, ledger.ReaderOptions(e.Topic, e.PositionTopic)...)
	observer := ledger.NewObserver(client, e.Topic, e.PositionTopic)
	reading, stopReading := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { read <- observer.Run(reading) }()
	relay := relaytest.Supervise(t, e.Options())
	relay.WaitState(t, cdc.StateStreaming, 30*time.Second)

	conn := e.Postgres.Connect(t, e.Database)
	for seq := range 200 { // some of these commits end with a page of WAL
		id, lsn := commitOne(t, conn, e.Topic, int64(seq+1))
		published, err := false, error(nil)
		for began := time.Now(); err == nil && !published && time.Since(began) < insertToFlush; {
			published, err = relay.Published(t.Context(), lsn, insertToFlush/2) // the most that it waits
		}
		if err != nil || !published {
			t.Fatalf("row %d: /published?lsn=%s says %v, %v", seq, lsn, published, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), seenWithin)
		err = observer.Wait(ctx, func() bool { return observer.Saw(id) })
		cancel()
		if err != nil {
			t.Fatalf("row %d is published up to %s, but no consumer sees it: %v", seq, lsn, err)
		}
	}
	stopReading()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	relay.Stop(t)
}

// TestPublishedSaysNotYet asks about an LSN that does not exist yet.
func TestPublishedSaysNotYet(t *testing.T) {
	e := environment(t, relaytest.Build(t), "")
	relay := relaytest.Supervise(t, e.Options())
	relay.WaitState(t, cdc.StateStreaming, 30*time.Second)
	published, err := relay.Published(t.Context(), insertLSN(t, e.Postgres.Connect(t, e.Database))+1<<30, 200*time.Millisecond)
	if err != nil || published {
		t.Errorf("an LSN of the future: published %v, %v", published, err)
	}
	relay.Stop(t)
}

// commitOne commits a row and returns its id and the insert LSN after it.
func commitOne(t *testing.T, conn *pgx.Conn, topic string, seq int64) (string, cdc.LSN) {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	value := json.RawMessage(fmt.Sprintf(`{"key": "k", "seq": %d, "tag": "must-appear"}`, seq))
	_, err := conn.Exec(t.Context(), `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, $2, 'k', 'ledger.row.v1', $3)`, id, topic, value)
	if err != nil {
		t.Fatal(err)
	}
	return id.String(), insertLSN(t, conn)
}

func insertLSN(t *testing.T, conn *pgx.Conn) cdc.LSN {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		t.Fatal(err)
	}
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}
