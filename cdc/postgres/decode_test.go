package postgres

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
)

var rewrite = flag.Bool("rewrite", false, "capture testdata/pgoutput.txt from a server and write what the decoder makes of it")

// scenario is a piece of stream as a real server sent it. Decoding happens in
// the order of the file, by one decoder.
type scenario struct {
	name string
	sql  string // runs the statements that make it; one transaction of ours each
}

var scenarios = []scenario{
	{"null is not empty", `INSERT INTO outbox (payload) VALUES (NULL), (''), ('a')`},
	{"copy", `COPY`},
	{"ddl in the middle", `BEGIN; INSERT INTO outbox (payload) VALUES ('before'); ALTER TABLE outbox RENAME COLUMN payload TO body; ALTER TABLE outbox ADD COLUMN payload text;
		INSERT INTO outbox (body, payload) VALUES ('old', 'new'); ALTER TABLE outbox DROP COLUMN body; COMMIT`},
	{"savepoints", `BEGIN; INSERT INTO outbox (payload) VALUES ('1'); SAVEPOINT s; INSERT INTO outbox (payload) VALUES ('2'); ROLLBACK TO s; INSERT INTO outbox (payload) VALUES ('3'); COMMIT`},
	{"logical message in a transaction", `BEGIN; SELECT pg_logical_emit_message(true, 'prefix', 'content'); INSERT INTO outbox (payload) VALUES ('after it'); COMMIT`},
	{"update, delete and truncate", `BEGIN; ALTER PUBLICATION golden SET (publish = 'insert, update, delete, truncate'); ALTER TABLE outbox REPLICA IDENTITY FULL;
		INSERT INTO outbox (payload) VALUES ('x'); UPDATE outbox SET payload = 'y'; DELETE FROM outbox WHERE payload = 'y'; TRUNCATE outbox; COMMIT`},
	{"another table of the publication", `BEGIN; CREATE TABLE other (x int, e int2); ALTER PUBLICATION golden ADD TABLE other; INSERT INTO other VALUES (1); INSERT INTO outbox (payload) VALUES ('ours'); COMMIT`},
	{"a type of the user's", `BEGIN; CREATE TYPE mood AS ENUM ('glad'); ALTER TABLE outbox ADD COLUMN mood mood; INSERT INTO outbox (payload, mood) VALUES ('x', 'glad'); COMMIT`},
	{"renamed table, known by its oid", `BEGIN; ALTER TABLE outbox RENAME TO outbox_before; INSERT INTO outbox_before (payload) VALUES ('renamed'); COMMIT`},
}

func TestDecodeWhatARealServerSent(t *testing.T) {
	file := filepath.Join("testdata", "pgoutput.txt")
	if *rewrite {
		captureScenarios(t, file)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), renderCapture(t, want)); diff != "" {
		t.Errorf("(-want +got, -rewrite accepts it)\n%s", diff)
	}
}

// renderCapture decodes the hex lines of a capture and writes below each what it
// means.
func renderCapture(t *testing.T, capture []byte) string {
	t.Helper()
	var out strings.Builder
	var d *decoder
	lines := bufio.NewScanner(bytes.NewReader(capture))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "\t"): // an old rendering
			continue
		case strings.HasPrefix(line, "table "):
			var oid uint32
			if _, err := fmt.Sscanf(line, "table %d", &oid); err != nil {
				t.Fatal(err)
			}
			d = newDecoder("public.outbox", oid, "id")
		case line != "" && !strings.HasPrefix(line, "#"):
			data, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			var m cdc.Message
			has, err := d.decode(data, &m)
			fmt.Fprintf(&out, "%s\n\t%s\n", line, renderMessage(&m, has, err))
			continue
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func renderMessage(m *cdc.Message, has bool, err error) string {
	switch {
	case err != nil:
		return "error: " + err.Error()
	case !has:
		return "relation"
	case m.Kind == cdc.MessageBegin:
		return fmt.Sprintf("begin xid %d commits at %s, %s", m.XID, m.CommitLSN, m.CommitTime.Format(time.RFC3339Nano))
	case m.Kind == cdc.MessageCommit:
		return fmt.Sprintf("commit %s ends at %s, %s", m.CommitLSN, m.EndLSN, m.CommitTime.Format(time.RFC3339Nano))
	case m.Kind == cdc.MessageIgnored:
		return "ignored: " + m.Ignored
	}
	var b strings.Builder
	fmt.Fprintf(&b, "insert into %s.%s, xid %d, commit LSN %s, event id %s:", m.Row.Relation.Schema, m.Row.Relation.Name, m.Row.XID, m.Row.CommitLSN, m.Row.EventID)
	for i, c := range m.Row.Relation.Columns {
		if m.Row.Values[i] == nil {
			fmt.Fprintf(&b, " %s=NULL", c.Name)
		} else {
			fmt.Fprintf(&b, " %s=%q", c.Name, m.Row.Values[i])
		}
	}
	return b.String()
}

func captureScenarios(t *testing.T, file string) {
	f := newFixture(t, cdctest.SharedPostgres(t))
	f.cfg.Publication = "golden"
	f.exec(t, `CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), payload text)`)
	f.publish(t)
	f.slot(t)
	s := f.attach(t)
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Messages of pgoutput, protocol version 1, as PostgreSQL %d sent them.\ntable %d\n", f.server.Major(), s.decoder.tableOID)
	for _, sc := range scenarios {
		fmt.Fprintf(&out, "\n# %s\n", sc.name)
		if sc.sql == "COPY" {
			if _, err := f.sql.PgConn().CopyFrom(t.Context(), strings.NewReader("x\n\\N\n"), `COPY outbox (payload) FROM STDIN`); err != nil {
				t.Fatal(err)
			}
		} else {
			f.exec(t, sc.sql)
		}
		s.conn.reader.receiveBy(time.Now().Add(patience))
		for ended := false; !ended; {
			received, err := s.frontend.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if data, ok := received.(*pgproto3.CopyData); ok && data.Data[0] == 'w' {
				fmt.Fprintf(&out, "%x\n", data.Data[xlogDataHeader:])
				ended = data.Data[xlogDataHeader] == 'C'
			}
		}
	}
	if err := os.WriteFile(file, []byte(renderCapture(t, out.Bytes())), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wireMessage builds messages for the tests of what no server sends.
type wireMessage []byte

func (m wireMessage) u8(v byte) wireMessage { return append(m, v) }
func (m wireMessage) u16(v uint16) wireMessage {
	return append(m, byte(v>>8), byte(v))
}
func (m wireMessage) u32(v uint32) wireMessage { return m.u16(uint16(v >> 16)).u16(uint16(v)) }
func (m wireMessage) u64(v uint64) wireMessage { return m.u32(uint32(v >> 32)).u32(uint32(v)) }
func (m wireMessage) text(s string) wireMessage {
	return append(append(m, s...), 0)
}

func beginMessage(commit uint64) wireMessage { return wireMessage("B").u64(commit).u64(0).u32(7) }
func relationMessage() wireMessage {
	return wireMessage("R").u32(1).text("public").text("outbox").u8('d').u16(2).u8(1).text("id").u32(25).u32(1).u8(0).text("payload").u32(25).u32(1)
}
func insertMessage() wireMessage { return wireMessage("I").u32(1).u8('N').u16(2) }

func TestDecodeRefusesWhatIsNotExact(t *testing.T) {
	good := func(m wireMessage) wireMessage { return m.u8('t').u32(1).u8('x').u8('n') }
	tests := []struct {
		name     string
		messages []wireMessage
		want     error
	}{
		{"nothing", []wireMessage{{}}, errEmpty},
		{"BEGIN cut short", []wireMessage{beginMessage(5)[:20]}, errShort},
		{"BEGIN with more", []wireMessage{beginMessage(5).u8(0)}, errTrailing},
		{"BEGIN twice", []wireMessage{beginMessage(5), beginMessage(6)}, errInTransaction},
		{"COMMIT of another", []wireMessage{beginMessage(5), wireMessage("C").u8(0).u64(6).u64(7).u64(0)}, errOtherCommit},
		{"COMMIT without BEGIN", []wireMessage{wireMessage("C").u8(0).u64(0).u64(7).u64(0)}, errOtherCommit},
		{"COMMIT that ends before it starts", []wireMessage{beginMessage(5), wireMessage("C").u8(0).u64(5).u64(5).u64(0)}, errLength},
		{"row outside of a transaction", []wireMessage{relationMessage(), good(insertMessage())}, errNoTransaction},
		{"row of an unknown relation", []wireMessage{beginMessage(5), good(insertMessage())}, errUnknownRelation},
		{"row with fewer columns", []wireMessage{relationMessage(), beginMessage(5), wireMessage("I").u32(1).u8('N').u16(1).u8('n')}, errColumnCount},
		{"row with bytes left", []wireMessage{relationMessage(), beginMessage(5), good(insertMessage()).u8(0)}, errTrailing},
		{"row cut short", []wireMessage{relationMessage(), beginMessage(5), insertMessage().u8('t').u32(9).u8('x')}, errShort},
		{"value of negative length", []wireMessage{relationMessage(), beginMessage(5), insertMessage().u8('t').u32(1 << 31)}, errLength},
		{"unchanged TOAST value", []wireMessage{relationMessage(), beginMessage(5), insertMessage().u8('u').u8('n')}, errUnchangedToast},
		{"binary value", []wireMessage{relationMessage(), beginMessage(5), insertMessage().u8('b').u32(0).u8('n')}, errBinaryValue},
		{"value of unknown kind", []wireMessage{relationMessage(), beginMessage(5), insertMessage().u8('z').u8('n')}, errUnknownValueKind},
		{"insert with an old row", []wireMessage{relationMessage(), beginMessage(5), wireMessage("I").u32(1).u8('K').u16(0)}, errUnknownValueKind},
		{"relation with a false count", []wireMessage{wireMessage("R").u32(1).text("s").text("t").u8('d').u16(65535)}, errShort},
		{"relation with bytes left", []wireMessage{relationMessage().u8(0)}, errTrailing},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := newDecoder("public.outbox", 1, "id")
			var m cdc.Message
			for i, message := range test.messages {
				_, err := d.decode(message, &m)
				if last := i == len(test.messages)-1; last && !errors.Is(err, test.want) || !last && err != nil {
					t.Errorf("message %d: got %v, want %v", i, err, test.want)
				}
			}
		})
	}
	for _, unknown := range "SEcAbPKrp\x00" { // streaming, two-phase and nonsense were not asked for
		if _, err := newDecoder("public.outbox", 1, "id").decode([]byte{byte(unknown), 0}, &cdc.Message{}); err == nil {
			t.Errorf("message %q was accepted", unknown)
		}
	}
}

func TestDecodeAllocatesNothingPerMessage(t *testing.T) {
	d := newDecoder("public.outbox", 1, "id")
	var m cdc.Message
	if _, err := d.decode(relationMessage(), &m); err != nil {
		t.Fatal(err)
	}
	begin, commit := beginMessage(5), wireMessage("C").u8(0).u64(5).u64(7).u64(0)
	insert := insertMessage().u8('t').u32(3).u8('a').u8('b').u8('c').u8('n')
	if got := testing.AllocsPerRun(5000, func() {
		for _, message := range [][]byte{begin, insert, commit} {
			if _, err := d.decode(message, &m); err != nil {
				t.Fatal(err)
			}
		}
	}); got != 0 {
		t.Errorf("%.2f allocations per transaction", got)
	}
}

func FuzzDecode(f *testing.F) {
	capture, err := os.ReadFile(filepath.Join("testdata", "pgoutput.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(capture)) {
		if data, err := hex.DecodeString(strings.TrimSpace(line)); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDecoder("public.outbox", 1, "id")
		var m cdc.Message
		for _, before := range []wireMessage{relationMessage(), beginMessage(5)} {
			if _, err := d.decode(before, &m); err != nil {
				t.Fatal(err)
			}
		}
		has, err := d.decode(data, &m)
		if err != nil || !has || m.Kind != cdc.MessageInsert {
			return
		}
		if len(m.Row.Values) != len(m.Row.Relation.Columns) || m.Row.Bytes() > len(data) {
			t.Errorf("%d values of %d bytes from %d bytes", len(m.Row.Values), m.Row.Bytes(), len(data))
		}
	})
}
