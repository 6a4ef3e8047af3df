// Package mutants breaks the relay on purpose, one rule of its protocol at a
// time, and demands that the check which guards the rule goes red. A check that
// no mutant can fail proves nothing.
package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutant is one rule broken.
type mutant struct {
	name string
	file string // below the module's directory
	// replace is pairs of a text that is in the file exactly once, and the text
	// in its place.
	replace []string
	// caughtBy is the check that has to go red, one of the simulation's, or a
	// test of the package.
	check string
	test  string // in the mutated file's own package; empty: the simulation
}

var mutants = []mutant{
	{
		name: "acknowledge before the Kafka commit",
		file: "cdc/progress.go",
		replace: []string{
			"next := min(p.recorded, p.received)\n", "next := p.received\n",
			"if owedFrom != 0 {", "if false {",
		},
		check: "ack-after-record",
	},
	{
		name: "acknowledge commit LSN + length",
		file: "cdc/streaming.go",
		replace: []string{
			"	t.open = false\n	s.progress.receivedTo(m.EndLSN)\n",
			"	t.open = false\n	m.EndLSN = m.CommitLSN + 2*(m.EndLSN-m.CommitLSN)\n	s.progress.receivedTo(m.EndLSN)\n",
		},
		check: "record-true",
	},
	{
		name: "global-maximum position",
		file: "cdc/kafka/positionlog.go",
		replace: []string{
			"if record.Offset > at.offset {", "if string(record.Value) > string(at.value) {",
		},
		test: "TestOpenTakesTheNewestRecord",
	},
	{
		name: "abort taken as aborted: the outcome of the last transaction is remembered, not read",
		file: "cdc/relay.go",
		replace: []string{
			"	kafka  KafkaFacts\n", "	kafka  KafkaFacts\n	believed *PositionRecord\n",
			"	r.kafka = in.Kafka\n	r.act(eff, PhaseFacts, ActionFacts)\n",
			"	if r.believed != nil {\n		in.Kafka.Record = r.believed\n	}\n	r.believed = in.Kafka.Record\n	r.kafka = in.Kafka\n	r.act(eff, PhaseFacts, ActionFacts)\n",
		},
		check: "no-duplicate",
	},
	{
		name: "position reader that gives up early",
		file: "cdc/kafka/sink.go",
		replace: []string{
			"		if at.stable < at.high {\n			if err := s.waitDecided(ctx, p.admin, at); err != nil {\n				return nil, nil, err\n			}\n			continue\n		}\n", "",
			"		if found.next < at.high {\n			return nil, nil, s.incomplete(found.next, at.high)\n		}\n", "",
		},
		// Not TestOpenWaitsForAForeignTransaction: that ends the transaction after a
		// while, and an Open that is slower than that finds nothing to give up at.
		test: "TestOpenHaltsAtAHangingTransaction",
	},
	{
		name: "InitProducerId before the slot",
		file: "cdc/relay.go",
		replace: []string{
			"	r.act(eff, PhaseAttaching, ActionAttach)\n}\n\n// standBy", "	r.act(eff, PhaseOpening, ActionOpen)\n}\n\n// standBy",
			"	r.act(eff, PhaseOpening, ActionOpen)\n}\n\nfunc (r *Relay) opened", "	r.act(eff, PhaseFacts, ActionFacts)\n}\n\nfunc (r *Relay) opened",
			"	r.kafka = in.Kafka\n	r.act(eff, PhaseFacts, ActionFacts)\n", "	r.kafka = in.Kafka\n	r.act(eff, PhaseAttaching, ActionAttach)\n",
		},
		check: "slot-before-id",
	},
	{
		name: "serial ignored",
		file: "cdc/streaming.go",
		replace: []string{
			"(row.CommitLSN == covered.CommitLSN && row.Serial <= covered.Serial)", "row.CommitLSN == covered.CommitLSN",
		},
		check: "no-loss",
	},
	{
		name: "idle progress acknowledged but not recorded",
		file: "cdc/progress.go",
		replace: []string{
			"next := min(p.recorded, p.received)\n", "next := min(max(p.recorded, p.idle), p.received)\n",
		},
		check: "ack-after-record",
	},
	{
		name: "failed promise ignored",
		file: "cdc/kafka/produce.go",
		replace: []string{
			"	return promises.err()\n}\n", "	return nil\n}\n",
		},
		test: "TestPublishCommitsNothingAfterOneFailedPromise",
	},
	{
		name: "batch cut without marking the position incomplete",
		file: "cdc/settle.go",
		replace: []string{
			"		next.Complete = false\n", "",
		},
		check: "record-true",
	},
	{
		name: "skip by idle LSN",
		file: "cdc/streaming.go",
		replace: []string{
			"row.CommitLSN < covered.CommitLSN ||", "row.CommitLSN < max(covered.CommitLSN, s.record.IdleLSN) ||",
		},
		check: "no-loss",
	},
	{
		name: "idle LSN kept across a timeline switch",
		file: "cdc/recovery.go",
		replace: []string{
			"resume.RecordedLSN = min(resume.RecordedLSN, at)\n", "resume.RecordedLSN = max(resume.RecordedLSN, at)\n",
		},
		check: "halt-legitimate",
	},
	{
		name: "facts read before the lease",
		file: "cdc/relay.go",
		replace: []string{
			"	r.kafka = in.Kafka\n	r.act(eff, PhaseFacts, ActionFacts)\n",
			"	r.kafka = in.Kafka\n	r.source.Lineage = r.kafka.Record.Lineage\n	r.factsRead(Input{Source: r.source}, eff, now)\n",
		},
		check: "facts-after-lease",
	},
	{
		name: "published floor taken before it is proved",
		file: "cdc/publishedfloor.go",
		replace: []string{
			" || last.CommitLSN < f.first.LSN {", " {",
		},
		check: "published-floor",
	},
	{
		name: "newest timeline compared instead of the recorded one",
		file: "cdc/recovery.go",
		replace: []string{
			"	recorded, server := record.Lineage, source.Lineage\n",
			"	recorded, server := source.Lineage, source.Lineage\n",
		},
		check: "ack-after-record",
	},
}

func TestMutants(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			output := m.run(t)
			if m.test != "" {
				if !strings.Contains(output, "--- FAIL: "+m.test) {
					t.Fatalf("%s does not catch it:\n%s", m.test, tail(output))
				}
				return
			}
			if caught := checkOf(output); caught != m.check {
				t.Fatalf("caught by %q, want %q:\n%s", caught, m.check, tail(output))
			}
		})
	}
}

// run runs the check on the mutated relay and returns what it printed.
func (m *mutant) run(t *testing.T) string {
	t.Helper()
	pkg, test := "./cdc/cdctest/simulation", "^TestSimulation$"
	if m.test != "" {
		pkg, test = "./"+filepath.Dir(m.file), "^"+m.test+"$"
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", m.overlay(t), pkg, "-run", test)
	cmd.Dir = moduleDir
	output, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("nothing catches it:\n%s", tail(string(output)))
	}
	if strings.Contains(string(output), "[build failed]") {
		t.Fatalf("it does not build:\n%s", output)
	}
	return string(output)
}

// moduleDir is where the module is, seen from here.
const moduleDir = "../../.."

// overlay writes the mutated file and the list that puts it in place.
func (m *mutant) overlay(t *testing.T) string {
	t.Helper()
	original, err := filepath.Abs(filepath.Join(moduleDir, m.file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replacement := filepath.Join(dir, "mutant.go")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	for name, content := range map[string][]byte{replacement: []byte(m.text(t)), path: list} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// text is the mutated file. A replacement that silently changes nothing would
// prove nothing.
func (m *mutant) text(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(moduleDir, m.file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for i := 0; i < len(m.replace); i += 2 {
		if n := strings.Count(text, m.replace[i]); n != 1 {
			t.Fatalf("%s: %s contains %d times what is to be replaced, want once:\n%s", m.name, m.file, n, m.replace[i])
		}
		text = strings.Replace(text, m.replace[i], m.replace[i+1], 1)
	}
	return text
}

var checkLine = regexp.MustCompile(`(?m)check: ([a-z-]+)`)

// checkOf is the check that the simulation names.
func checkOf(output string) string {
	if match := checkLine.FindStringSubmatch(output); match != nil {
		return match[1]
	}
	return ""
}

// tail is the end of an output.
func tail(output string) string {
	const most = 3000
	if len(output) <= most {
		return output
	}
	return fmt.Sprintf("... %s", output[len(output)-most:])
}
