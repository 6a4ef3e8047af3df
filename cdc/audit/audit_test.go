package audit

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/routing"
)

func TestWholeHistoryIsClean(t *testing.T) {
	for _, format := range []string{"", routing.FormatCloudEventsStructured, routing.FormatRaw, routing.FormatDebezium} {
		t.Run("format "+format, func(t *testing.T) {
			h := newHistory(t, format, 40)
			for _, memory := range []int{0, 1} { // the second writes each entry into a run of its own
				cfg := h.config(t, format)
				cfg.MemoryBytes = memory
				// What the server does not keep makes no difference to the content.
				if memory == 1 {
					for i := range h.rows {
						h.rows[i].CommitTime = time.Time{}
					}
				}
				report, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if report.Differences() != 0 || report.Rows != 40 || report.Records != 40 || report.Found != 40 || !report.Proved {
					t.Errorf("with %d bytes: %+v", memory, report)
				}
			}
		})
	}
}

// Each broken history is found, as what it is, and as nothing else.
func TestBrokenHistories(t *testing.T) {
	const n = 40
	swap := func(h *history, a, b int) { h.records[a], h.records[b] = h.records[b], h.records[a] }
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, h *history, cfg *Config)
		want  Report // the counts that are not as in a clean audit
		kinds []string
	}{
		{"a record is missing", func(_ *testing.T, h *history, _ *Config) { h.records = slices.Delete(h.records, 7, 8) }, Report{Missing: 1}, []string{KindMissing}},
		{"the last record is missing", func(_ *testing.T, h *history, _ *Config) { h.records = h.records[:n-1] }, Report{Missing: 1}, []string{KindMissing}},
		{"the topic is gone", func(_ *testing.T, h *history, _ *Config) { h.noTopic = true }, Report{Missing: n}, []string{KindMissing}},
		{"a record is there twice", func(_ *testing.T, h *history, _ *Config) {
			double := h.records[3]
			double.Headers = nil
			for _, header := range h.records[3].Headers {
				if header.Key != headerPosition { // or the position would come again too
					double.Headers = append(double.Headers, header)
				}
			}
			h.records = append(h.records, double)
		}, Report{Duplicate: 1}, []string{KindDuplicate}},
		{"a batch is there twice, as at-least-once would", func(_ *testing.T, h *history, _ *Config) { h.records = append(h.records, h.records[30:]...) },
			Report{Duplicate: 10, Order: Order{PositionsBackwards: 10}}, []string{KindDuplicate, KindPosition}},
		{"two transactions of a key are swapped", func(_ *testing.T, h *history, _ *Config) {
			// Rows 0, 1 and 8, 9 have one key; their position headers stay in order.
			for i := range 2 {
				swapHeaders(&h.records[i], &h.records[8+i])
				swap(h, i, 8+i)
			}
		}, Report{OutOfOrder: 1}, []string{KindOutOfOrder}},
		{"two rows of a transaction are swapped", func(_ *testing.T, h *history, _ *Config) {
			swapHeaders(&h.records[4], &h.records[5])
			swap(h, 4, 5)
		}, Report{OutOfOrder: 1}, []string{KindOutOfOrder}},
		{"two rows of a transaction are swapped, and no commit timestamps", func(_ *testing.T, h *history, _ *Config) {
			for i := range h.rows {
				h.rows[i].CommitTime = time.Time{}
			}
			swapHeaders(&h.records[4], &h.records[5])
			swap(h, 4, 5)
		}, Report{OutOfOrder: 1}, []string{KindOutOfOrder}},
		{"position headers go back", func(_ *testing.T, h *history, _ *Config) { swapHeaders(&h.records[4], &h.records[5]) },
			Report{Order: Order{PositionsBackwards: 1}}, []string{KindPosition}},
		{"a record lies in another partition", func(_ *testing.T, h *history, _ *Config) {
			h.records[n-1].Partition = (h.records[n-1].Partition + 1) % testPartitions
		}, Report{WrongPlace: 1}, []string{KindWrongPlace}},
		{"a record lies in another topic", func(_ *testing.T, h *history, cfg *Config) {
			h.records[n-1].Topic, cfg.Topics = otherTopic, []cdc.Topic{otherTopic}
		}, Report{WrongPlace: 1}, []string{KindWrongPlace}},
		{"a value was changed", func(_ *testing.T, h *history, _ *Config) { h.records[5].Value = []byte(`{"n": 6}`) }, Report{Changed: 1}, []string{KindChanged}},
		{"a value became a tombstone", func(_ *testing.T, h *history, _ *Config) { h.records[5].Value = nil }, Report{Changed: 1}, []string{KindChanged}},
		{"a key was changed", func(_ *testing.T, h *history, _ *Config) { h.records[5].Key = []byte("key-x") }, Report{Changed: 1}, []string{KindChanged}},
		{"a header was changed", func(_ *testing.T, h *history, _ *Config) { setHeader(&h.records[5], "ce_type", "payment.failed") }, Report{Changed: 1}, []string{KindChanged}},
		{"a rolled back row was published", func(_ *testing.T, h *history, _ *Config) { h.rows = slices.Delete(h.rows, 9, 10) }, Report{Phantom: 1}, []string{KindPhantom}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory(t, "", n)
			var missing []ID
			report := h.audit(t, func(cfg *Config) {
				cfg.Missing = func(id ID) error { missing = append(missing, id); return nil }
				test.spoil(t, h, cfg)
			})
			got := Report{
				Missing: report.Missing, Duplicate: report.Duplicate, OutOfOrder: report.OutOfOrder, WrongPlace: report.WrongPlace,
				Changed: report.Changed, Phantom: report.Phantom, Order: Order{PositionsBackwards: report.Order.PositionsBackwards},
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Report{})); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
			kinds := map[string]bool{}
			for _, example := range report.Examples {
				kinds[example.Kind] = true
			}
			for _, kind := range test.kinds {
				if !kinds[kind] {
					t.Errorf("no example of kind %s in %+v", kind, report.Examples)
				}
			}
			if len(kinds) != len(test.kinds) || int64(len(missing)) != report.Missing || !slices.IsSortedFunc(missing, ID.Compare) {
				t.Errorf("kinds %v, %d missing rows told", kinds, len(missing))
			}
		})
	}
}

// swapHeaders exchanges the position headers of two records.
func swapHeaders(a, b *Record) {
	at, _ := headerOf(a.Headers, headerPosition)
	bt, _ := headerOf(b.Headers, headerPosition)
	setHeader(a, headerPosition, string(bt))
	setHeader(b, headerPosition, string(at))
}

func setHeader(record *Record, name, value string) {
	record.Headers = slices.Clone(record.Headers)
	for i := range record.Headers {
		if record.Headers[i].Key == name {
			record.Headers[i].Value = []byte(value)
			return
		}
	}
	record.Headers = append(record.Headers, cdc.Header{Key: name, Value: []byte(value)})
}

func TestWhatIsNoDifference(t *testing.T) {
	const n = 20
	for _, test := range []struct {
		name  string
		spoil func(h *history, cfg *Config)
		check func(r *Report) bool
	}{
		{"a row that nobody proves to be published is pending", func(h *history, cfg *Config) {
			h.records = h.records[:n-1]
			cfg.Published = func(context.Context) (bool, error) { return false, nil }
		}, func(r *Report) bool { return r.Pending == 1 && r.Found == n-1 && !r.Proved }},
		{"a parked row is parked", func(h *history, _ *Config) {
			h.records[n-1] = Record{Topic: parkedTopic, Key: h.rows[n-1].EventID}
		}, func(r *Report) bool { return r.Parked == 1 && r.Found == n-1 }},
		{"a parked row that was published later is found", func(h *history, _ *Config) {
			h.records = append(h.records, Record{Topic: parkedTopic, Key: h.rows[n-1].EventID})
		}, func(r *Report) bool { return r.Parked == 0 && r.Found == n }},
		{"a row that cannot be routed and is parked is parked", func(h *history, _ *Config) {
			h.rows[n-1].Values[1] = []byte("elsewhere")
			h.records[n-1] = Record{Topic: parkedTopic, Key: h.rows[n-1].EventID}
		}, func(r *Report) bool { return r.Parked == 1 && r.Unroutable == 0 }},
		{"a row that cannot be routed and was skipped is unroutable", func(h *history, _ *Config) {
			h.rows[n-1].Values[1] = []byte("elsewhere")
			h.records = h.records[:n-1]
		}, func(r *Report) bool { return r.Unroutable == 1 && r.Found == n-1 }},
		{"a backfilled record has no place in the order", func(h *history, _ *Config) {
			late := h.records[0]
			setHeader(&late, HeaderBackfill, "run")
			setHeader(&late, headerPosition, "0000-0000000000000000-00000000")
			h.records = append(h.records[1:], late)
		}, func(r *Report) bool { return r.Backfilled == 1 && r.Found == n }},
		{"a record of a row that came after the snapshot", func(h *history, _ *Config) {
			h.rows = h.rows[:n-1]
			h.now[testID(n-1)] = true
		}, func(r *Report) bool { return r.Later == 1 && r.Phantom == 0 && r.Found == n-1 }},
		{"records below the lowest row", func(h *history, _ *Config) { h.rows = h.rows[3:] }, func(r *Report) bool { return r.Pruned == 3 }},
		{"records and rows outside of the range", func(h *history, cfg *Config) {
			h.records = h.records[:n-2]
			cfg.Range = Range{From: testID(5), To: testID(n - 2)}
		}, func(r *Report) bool { return r.Rows == n-7 && r.Records == n-7 }},
		{"a row older than what retention has left", func(h *history, _ *Config) {
			at := place{testTopic, h.records[0].Partition}
			h.starts[at] = epoch.Add(time.Second)
			h.records = h.records[1:]
		}, func(r *Report) bool { return r.Expired == 1 && r.Found == n-1 }},
		{"commit timestamps that differ within the tolerance", func(h *history, cfg *Config) {
			h.rows[8].CommitTime = h.rows[0].CommitTime.Add(-time.Millisecond)
			h.rows[9].CommitTime = h.rows[8].CommitTime
			cfg.OrderTolerance, cfg.IgnoreContent = 2*time.Millisecond, true
		}, func(r *Report) bool { return r.Order.PairsChecked > 0 }},
		{"unknown commit timestamps prove nothing", func(h *history, _ *Config) {
			for i := range h.rows {
				h.rows[i].CommitTime = time.Time{}
			}
		}, func(r *Report) bool { return !r.Order.CommitTimes && r.Order.PairsUnknown > 0 }},
		{"records of another relay in the same topic", func(h *history, cfg *Config) {
			theirs := h.records[n-1]
			setHeader(&theirs, "ce_source", "/other")
			setHeader(&theirs, "ce_id", testID(n - 1).String()[:35]+"f")
			setHeader(&theirs, headerPosition, "0001-0000000000000001-00000001")
			h.records = append(h.records, theirs)
			cfg.Source = "/test"
		}, func(r *Report) bool { return r.Foreign == 1 && r.Found == n }},
		{"a record of somebody else", func(h *history, _ *Config) {
			h.records = append(h.records, Record{Topic: testTopic, Value: []byte("x")})
		}, func(r *Report) bool { return r.Foreign == 1 && r.Found == n }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory(t, "", n)
			report := h.audit(t, func(cfg *Config) { test.spoil(h, cfg) })
			if report.Differences() != 0 || !test.check(report) {
				t.Errorf("got %+v", report)
			}
		})
	}
}

func TestOrderToleranceIsNotMore(t *testing.T) {
	h := newHistory(t, "", 20)
	h.rows[8].CommitTime = h.rows[0].CommitTime.Add(-3 * time.Millisecond)
	h.rows[9].CommitTime = h.rows[8].CommitTime
	report := h.audit(t, func(cfg *Config) { cfg.OrderTolerance, cfg.IgnoreContent = 2*time.Millisecond, true })
	if report.OutOfOrder != 1 {
		t.Errorf("%d out of order, want 1: %+v", report.OutOfOrder, report.Examples)
	}
}

func TestFailuresAreNoReport(t *testing.T) {
	h := newHistory(t, "", 4)
	cfg := h.config(t, "")
	cfg.Published = func(context.Context) (bool, error) { return false, errors.New("no route to host") }
	if report, err := Run(t.Context(), cfg); report != nil || err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("got %v, %v", report, err)
	}
	h.rows[2].EventID = []byte("17")
	problem, ok := errors.AsType[*cdc.Problem](func() error { _, err := Run(t.Context(), h.config(t, "")); return err }())
	if !ok || !strings.Contains(problem.What, `"17" is no UUID`) {
		t.Errorf("an id that is no UUID: %v", problem)
	}
	if _, err := Run(t.Context(), Config{OrderTolerance: -1}); err == nil || strings.Count(err.Error(), "audit:") != 3 {
		t.Errorf("an empty config: %v", err)
	}
}

// The fields of the report are a contract.
func TestReportFields(t *testing.T) {
	text, err := json.Marshal(newHistory(t, "", 2).audit(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"rows", "records", "proved", "found", "parked", "pending", "unroutable", "expired", "backfilled", "later", "pruned", "foreign",
		"missing", "duplicate", "out_of_order", "wrong_place", "changed", "phantom", "order", "topics", "examples", "seconds",
	} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no field %s in %s", name, text)
		}
		delete(fields, name)
	}
	if len(fields) > 0 {
		t.Errorf("fields that the contract does not know: %v", fields)
	}
}
