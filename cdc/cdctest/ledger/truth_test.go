package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

const (
	idA = "01890a5d-ac96-774b-bcce-b302099a8057"
	idB = "01890a5d-ac97-7e1c-8bd5-5b1e1f1d1a00"
)

func TestParserReadsTestDecoding(t *testing.T) {
	p := decodingParser{tables: map[string]bool{"public.outbox": true, `public."outbox_2026-11-24"`: true}}
	for _, line := range [][2]string{
		{"0/100", "BEGIN 731"},
		{"0/108", "table public.outbox: INSERT: id[uuid]:'" + idA + "' aggregatetype[text]:'id[uuid]:''x'''"},
		{"0/110", "table public.other: INSERT: id[uuid]:'" + idB + "'"},
		{"0/118", "table public.outbox: DELETE: (no-tuple-data)"},
		{"0/120", "message: transactional: 1 prefix: p, sz: 1 content:x"},
		{"0/128", "COMMIT 731"},
		{"0/130", "BEGIN 732"},
		{"0/138", "table public.other: UPDATE: id[uuid]:'" + idB + "'"},
		{"0/140", "COMMIT 732"},
		{"0/148", "BEGIN 733"},
		{"0/150", `table public."outbox_2026-11-24": INSERT: aggregatetype[text]:'a' id[uuid]:'` + idB + `'`},
		{"0/158", "COMMIT 733"},
	} {
		if err := p.line(line[0], line[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := []Transaction{
		{XID: 731, EndLSN: 0x128, Events: []Event{{ID: idA}}},
		{XID: 733, EndLSN: 0x158, Events: []Event{{ID: idB}}},
	}
	if diff := cmp.Diff(want, p.transactions); diff != "" {
		t.Errorf("transactions (-want +got):\n%s", diff)
	}
}

func TestParserRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, lines := range [][]string{
		{"COMMIT 731"},
		{"BEGIN x"},
		{"BEGIN 731", "table public.outbox: INSERT: aggregatetype[text]:'a'"},
	} {
		p := decodingParser{tables: map[string]bool{"public.outbox": true}}
		var err error
		for _, line := range lines {
			if err == nil {
				err = p.line("0/1", line)
			}
		}
		if err == nil {
			t.Errorf("%q was accepted", lines)
		}
	}
}

func TestJoinNeedsTableAndWALToAgree(t *testing.T) {
	one := []Transaction{{Events: []Event{{ID: idA}}}}
	if _, err := join(one, map[string]Event{}); err == nil {
		t.Error("a row that is not in the table was accepted")
	}
	if _, err := join(nil, map[string]Event{idA: {ID: idA}}); err == nil {
		t.Error("a row that is not in the WAL was accepted")
	}
}

// TestTruthOfTheWriters runs the writers through a crash of the server and
// compares what they know with what table and WAL say.
func TestTruthOfTheWriters(t *testing.T) {
	pg := cdctest.StartPostgres(t, cdctest.PostgresConfig{})
	database := pg.Database(t)
	table := pgx.Identifier{"public", "outbox"}
	truth := Truth{Table: table, Slot: "audit"}
	conn := pg.Connect(t, database)
	for _, sql := range []string{
		`CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb) PARTITION BY RANGE (id)`,
		`CREATE TABLE outbox_default PARTITION OF outbox DEFAULT`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := truth.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	dsn := pg.DSN(database, "postgres")
	writers := NewWriters(WritersConfig{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) },
		Table:   table, AggregateType: "a", Writers: 4, KeysPerWriter: 3, Rows: 3000, BigTransactionRows: 500, Seed: 1,
	})
	done := make(chan error, 1)
	go func() { done <- writers.Run(t.Context()) }()
	deadline := time.Now().Add(time.Minute)
	for writers.Counts.Rows.Load() < 1000 && time.Now().Before(deadline) {
		sleep(t.Context(), 5*time.Millisecond)
	}
	pg.Restart(t, "immediate")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	committed, err := truth.Read(t.Context(), pg.Connect(t, database))
	if err != nil {
		t.Fatal(err)
	}
	compareWithCounts(t, committed, &writers.Counts)
}

// compareWithCounts also demands that numbers within a key have no gap.
func compareWithCounts(t *testing.T, committed []Transaction, counts *WriterCounts) {
	t.Helper()
	rows := 0
	numbers := map[string]int64{}
	var end cdc.LSN
	for _, transaction := range committed {
		if transaction.EndLSN <= end {
			t.Errorf("transaction %d ends at %s, after one that ends at %s", transaction.XID, transaction.EndLSN, end)
		}
		end = transaction.EndLSN
		for _, event := range transaction.Events {
			rows++
			if numbers[event.Key]++; event.Seq != numbers[event.Key] {
				t.Fatalf("key %s has number %d where %d is next", event.Key, event.Seq, numbers[event.Key])
			}
		}
	}
	if int64(rows) != counts.Rows.Load() || int64(len(committed)) != counts.Transactions.Load() {
		t.Errorf("truth has %d rows in %d transactions, the writers know of %d in %d", rows, len(committed), counts.Rows.Load(), counts.Transactions.Load())
	}
	if counts.RolledBack.Load() == 0 || counts.Savepoints.Load() == 0 {
		t.Error("nothing was rolled back")
	}
}
