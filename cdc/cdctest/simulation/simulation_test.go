package simulation

import (
	"bufio"
	"flag"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	schedules = flag.Int("schedules", defaultSchedules, "schedules that TestSimulation runs")
	firstSeed = flag.Uint64("seed", 1, "the first one's seed")
)

// shrinkTime bounds the search for a shorter history of a failure.
const shrinkTime = 3 * time.Second

func TestSimulation(t *testing.T) {
	stats, failure := Explore(Model{}, *firstSeed, *schedules)
	if failure != nil {
		t.Fatal("\n" + failure.Report(Model{}, shrinkTime))
	}
	t.Log(stats.String())
	if stats.Steps < 200*stats.Schedules {
		t.Errorf("%d schedules have %d steps, want 200 each", stats.Schedules, stats.Steps)
	}
	if *schedules < 100_000 {
		return // too few to meet everything
	}
	for _, rare := range Rares() {
		if stats.Rare[rare] == 0 {
			t.Errorf("never reached: %s", rare)
		}
	}
}

// A publisher that breaks its protocol is caught, and by the check that the
// broken rule is there for; so the model has the dangers and the checks bite.
func TestModelIsSharp(t *testing.T) {
	for name, c := range map[string]struct {
		model Model
		want  []Check
	}{
		"takes an unknown outcome as aborted":           {Model{TakesUnknownAsAborted: true}, []Check{CheckNoDuplicate}},
		"reads the position before it fences":           {Model{ReadsBeforeFencing: true}, []Check{CheckNoDuplicate, CheckRecordedMonotone}},
		"gives the read up early":                       {Model{GivesUpEarly: true}, []Check{CheckNoDuplicate, CheckRecordedMonotone}},
		"takes a doubled EndTxn as a success":           {Model{TrustsDoubledEnd: true}, []Check{CheckAtomic, CheckNoDuplicate, CheckRecordTrue}},
		"commits before every promise is known":         {Model{SkipsPromises: true}, []Check{CheckAtomic, CheckPrefix, CheckRecordTrue, CheckNoDuplicate}},
		"fences only the ids that it is configured for": {Model{FencesOwnIDsOnly: true}, []Check{CheckNoDuplicate, CheckRecordedMonotone, CheckRecordTrue, CheckLiveness}},
	} {
		t.Run(name, func(t *testing.T) {
			failure := firstFailure(t, c.model)
			t.Logf("schedule %d caught by %s", failure.Seed, failure.Violation)
			if !slices.Contains(c.want, failure.Violation.Check) {
				t.Errorf("caught by %s, want one of %v", failure.Violation, c.want)
			}
		})
	}
}

// firstFailure is always the same one: it goes from seed to seed.
func firstFailure(t *testing.T, model Model) *Failure {
	t.Helper()
	w := NewWorld(model)
	for seed := uint64(1); seed <= 20_000; seed++ {
		if v := w.Run(seed); v != nil {
			return &Failure{Seed: seed, Violation: v}
		}
	}
	t.Fatal("the broken model was not caught in 20000 schedules")
	return nil
}

func TestTheSameSeedIsTheSameHistory(t *testing.T) {
	history := func(w *World) string {
		w.tracing = true
		w.Run(7)
		return strings.Join(w.trace, "\n")
	}
	used := NewWorld(Model{})
	used.Run(3)
	if history(used) != history(NewWorld(Model{})) {
		t.Error("a world that was used before plays seed 7 otherwise")
	}
}

func TestATapePlaysWhatItsSeedDid(t *testing.T) {
	seeded := NewWorld(Model{})
	seeded.tracing = true
	seeded.Run(11)
	tape, err := ParseTape(Record(Model{}, 11).String())
	if err != nil {
		t.Fatal(err)
	}
	replayed := NewWorld(Model{})
	replayed.tracing = true
	replayed.Replay(tape)
	if got, want := strings.Join(replayed.trace, "\n"), strings.Join(seeded.trace, "\n"); got != want {
		t.Errorf("the tape's history has %d bytes, the seed's %d", len(got), len(want))
	}
}

func TestShrinking(t *testing.T) {
	model := Model{TakesUnknownAsAborted: true}
	failure := firstFailure(t, model)
	tape := Record(model, failure.Seed)
	shrunk := tape
	for began := time.Now(); len(shrunk) > len(tape)/2 && time.Since(began) < 2*time.Minute; { // a busy machine takes its time
		shrunk = Shrink(model, shrunk, failure.Violation.Check, 3*time.Second)
	}
	if len(shrunk) > len(tape)/2 {
		t.Errorf("%d steps were shrunk to %d", len(tape)-1, len(shrunk)-1)
	}
	if v := NewWorld(model).Replay(shrunk); v == nil || v.Check != failure.Violation.Check {
		t.Errorf("the shrunk tape breaks %v, want %s", v, failure.Violation.Check)
	}
	if v := NewWorld(Model{}).Replay(shrunk); v != nil {
		t.Errorf("the sound model breaks %v on it", v)
	}
	report := failure.Report(model, time.Second)
	if !strings.HasPrefix(report, "check: no-duplicate\n") {
		t.Errorf("no line names the check in:\n%s", report)
	}
	t.Logf("%d steps shrunk to %d", len(tape)-1, len(shrunk)-1)
}

// TestRegressions replays what once failed: lines "seed N" or "tape T", after
// a comment that says what it was.
func TestRegressions(t *testing.T) {
	file, err := os.Open("testdata/regressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := NewWorld(Model{})
	replayed := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, value, _ := strings.Cut(lines.Text(), " ")
		var violation *Violation
		switch kind {
		case "", "#":
			continue
		case "seed":
			seed, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			violation = w.Run(seed)
		case "tape":
			tape, err := ParseTape(value)
			if err != nil {
				t.Fatal(err)
			}
			violation = w.Replay(tape)
		default:
			t.Fatalf("line %q", lines.Text())
		}
		replayed++
		if violation != nil {
			t.Errorf("check: %s\n%s %.60s breaks %s again", violation.Check, kind, value, violation)
		}
	}
	if err := lines.Err(); err != nil || replayed == 0 {
		t.Fatalf("%d lines replayed, %v", replayed, err)
	}
}
