package halts_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// halt is one way in which a careless person, or a broken machine, makes the
// relay stop for a person.
type halt struct {
	name   string
	reason cdc.HaltReason
	want   []string // texts of the message, beside the reason
	then   []string // of the message when it is started again; nil: want
	// fresh: nothing was ever published. Else four rows were.
	fresh bool
	// running: it happens while the relay streams.
	running bool
	// reaches: what stands before the finding is published first, as it has to be.
	reaches bool
	bed     func(t *testing.T) *bed // default: a bed on the shared servers
	spoil   func(t *testing.T, b *bed)
	// mend takes the cause away, or adopts it; afterwards every row has
	// been delivered once. It follows the text of the halt.
	mend func(t *testing.T, b *bed)
	// out follows the text too, where rows cannot be in order afterwards; it checks
	// itself what has come of them.
	out func(t *testing.T, b *bed)
	// slow: a start takes so long until it halts that only one is made, and two
	// against a real Kafka.
	slow bool
	// long: it is done against a real Kafka only, to keep the other run short.
	long bool
}

func halts() []halt {
	return slices.Concat(setupHalts(), positionHalts(), slotHalts(), historyHalts(), streamHalts(), kafkaHalts(), rowHalts())
}

// TestHalts causes every halt and demands that the relay ends with exit code 5,
// says what, why and the way out, lets the slot go, has acknowledged nothing and
// written nothing, and does just the same when it is started again.
func TestHalts(t *testing.T) {
	t.Parallel()
	for _, h := range halts() {
		if h.long && !cdctest.SharedKafka(t).Real() {
			continue
		}
		t.Run(string(h.reason)+" "+h.name, func(t *testing.T) {
			t.Parallel()
			makeBed := h.bed
			if makeBed == nil {
				makeBed = newBed
			}
			b := makeBed(t)
			if h.running {
				h.whileRunning(t, b)
			} else {
				h.atStart(t, b)
			}
			if h.mend != nil {
				h.mend(t, b)
				b.once(t)
				b.requireExact(t)
				b.command(t, 0, "audit", "--timeout", "0s")
			}
			if h.out != nil {
				h.out(t, b)
			}
			if h.mend == nil && h.out == nil {
				t.Error("the case follows no way out")
			}
		})
	}
}

func (h *halt) atStart(t *testing.T, b *bed) {
	t.Helper()
	if !h.fresh {
		b.write(t, 2)
		b.once(t)
	}
	b.write(t, 2)
	h.spoil(t, b)
	before := b.marks(t)
	b.message = requireHalt(t, b.run(t), h.reason, h.want)
	if h.reaches {
		b.requireNothingAhead(t)
	} else {
		b.requireStill(t, before)
	}
	h.again(t, b)
}

// whileRunning lets the relay halt while it streams. It may have acknowledged
// what it had recorded until it noticed, and nothing else.
func (h *halt) whileRunning(t *testing.T, b *bed) {
	t.Helper()
	relay := b.run(t)
	b.relay = relay
	relay.WaitState(t, cdc.StateStreaming, patience)
	b.write(t, 2)
	b.awaitDelivered(t)
	h.spoil(t, b)
	b.message = requireHalt(t, relay, h.reason, h.want)
	if h.reason != cdc.HaltSlotMoved {
		b.requireNothingAhead(t)
	}
	h.again(t, b)
}

// again starts the relay once more, with --stay-up: it halts for the same
// reason, shows it, and moves nothing.
func (h *halt) again(t *testing.T, b *bed) {
	t.Helper()
	if h.slow && !b.Kafka.Real() {
		return
	}
	before := b.marks(t)
	relay := b.run(t, "--stay-up")
	relay.WaitState(t, cdc.StateHalted, lifetime)
	if code, body, err := relay.Get(t.Context(), "/readyz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(string(body), string(h.reason)) {
		t.Errorf("/readyz of a halted relay: HTTP %d, %v, want 503 with the reason:\n%s", code, err, body)
	}
	metric := fmt.Sprintf("cdc_relay_halted{reason=%q,slot=%q} 1\n", h.reason, b.Slot)
	if code, body, err := relay.Get(t.Context(), "/metrics"); err != nil || code != http.StatusOK || !strings.Contains(string(body), metric) {
		t.Errorf("/metrics of a halted relay: HTTP %d, %v, want %s", code, err, metric)
	}
	h.requireStill(t, b, before) // with the process still up
	relay.Signal(syscall.SIGTERM)
	then := h.then
	if then == nil {
		then = h.want
	}
	b.message = requireHalt(t, relay, h.reason, then)
	h.requireStill(t, b, before)
}

// requireStill lets a relay that reads up to the finding once more acknowledge on
// its way what was recorded before.
func (h *halt) requireStill(t *testing.T, b *bed, before marks) {
	t.Helper()
	if h.reaches {
		b.requireNothingAhead(t)
		before.Confirmed = b.marks(t).Confirmed
	}
	b.requireStill(t, before)
}

// requireHalt waits for the end and reads what the relay says.
func requireHalt(t *testing.T, relay *relaytest.Process, reason cdc.HaltReason, texts []string) string {
	t.Helper()
	if code := wait(t, relay); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	_, message, found := strings.Cut(relay.Stderr(), "cdc-relay: "+string(reason)+": ")
	if !found {
		t.Fatalf("no message of halt %s:\n%s", reason, relay.Stderr())
	}
	for _, want := range append([]string{"\n  why: ", "\n  fix: "}, texts...) {
		if !strings.Contains(message, want) {
			t.Errorf("the message does not contain %q:\n%s", want, message)
		}
	}
	t.Logf("%s: %s", reason, message)
	return message
}

// awaitDelivered waits until the relay that runs has acknowledged all rows.
func (b *bed) awaitDelivered(t *testing.T) {
	t.Helper()
	// Not the insert LSN: what nobody waits for may stand there unflushed for long.
	upTo := query(t, b.db, `SELECT pg_current_wal_flush_lsn()::text`)
	eventually(t, "everything is acknowledged", func() bool {
		published, err := relaytest.Admin{Addr: b.AdminAddr}.Published(t.Context(), parseLSN(t, upTo), 0)
		return err == nil && published
	})
}

// requireNothingAhead compares the slot with the newest position record.
func (b *bed) requireNothingAhead(t *testing.T) {
	t.Helper()
	confirmed := b.marks(t).Confirmed
	if confirmed == "" {
		return // the slot is gone
	}
	if recorded := b.newestRecord(t).RecordedLSN; parseLSN(t, confirmed) > recorded {
		t.Errorf("the slot was told %s, Kafka has recorded %s", confirmed, recorded)
	}
}

func parseLSN(t *testing.T, text string) cdc.LSN {
	t.Helper()
	lsn, err := cdc.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// TestEveryHaltIsProduced compares the cases with the closed list.
func TestEveryHaltIsProduced(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(relaytest.ModuleDir(t), "cdc", "problem.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := constantsOf(t, file, "HaltReason")
	if len(reasons) < 15 {
		t.Errorf("only %d reasons were found in the source: %v", len(reasons), reasons)
	}
	var produced []string
	for _, h := range halts() {
		if h.long {
			continue // another case has to produce it always
		}
		produced = append(produced, string(h.reason))
	}
	for _, reason := range reasons {
		if !slices.Contains(produced, reason) {
			t.Errorf("no case produces the halt %s", reason)
		}
	}
	for _, reason := range produced {
		if !slices.Contains(reasons, reason) {
			t.Errorf("the halt %s of a case is not in the closed list", reason)
		}
	}
}

// constantsOf returns the string constants of a type.
func constantsOf(t *testing.T, file *ast.File, typeName string) []string {
	t.Helper()
	var values []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != typeName {
			return true
		}
		for _, expression := range spec.Values {
			literal, ok := expression.(*ast.BasicLit)
			if !ok {
				t.Errorf("constant %s is no literal", spec.Names[0].Name)
				continue
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Error(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}
