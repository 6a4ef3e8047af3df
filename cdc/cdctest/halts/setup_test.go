package halts_test

import (
	"strings"
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// setupHalts: nothing was ever published, and something was never made.
func setupHalts() []halt {
	return []halt{
		{
			name: "topic never made", reason: cdc.HaltSetup, fresh: true,
			want:  []string{"topic", "does not exist"},
			spoil: func(t *testing.T, b *bed) { b.deleteTopic(t, b.Topic) },
			mend:  func(t *testing.T, b *bed) { b.createTopic(t, b.Topic, b.Partitions, nil) },
		},
		{
			name: "publication dropped before the first row", reason: cdc.HaltSetup, fresh: true,
			want:  []string{"publication", "does not exist", "CREATE PUBLICATION"},
			spoil: func(t *testing.T, b *bed) { b.exec(t, `DROP PUBLICATION `+b.Publication) },
			mend:  func(t *testing.T, b *bed) { b.adoptStream(t, b.createPublication()) },
		},
	}
}

// positionHalts: the position topic does not tell where to go on.
func positionHalts() []halt {
	compact := "compact"
	return []halt{
		{
			name: "topic deleted", reason: cdc.HaltPositionMissing, want: []string{"holds no position record", "init"},
			spoil: func(t *testing.T, b *bed) { b.deleteTopic(t, b.PositionTopic) }, out: resynced,
		},
		{
			name: "topic made anew", reason: cdc.HaltPositionMissing, want: []string{"holds no position record", "init"},
			spoil: func(t *testing.T, b *bed) {
				b.deleteTopic(t, b.PositionTopic)
				b.createTopic(t, b.PositionTopic, 1, map[string]*string{"cleanup.policy": &compact})
			},
			out: resynced,
		},
		{
			name: "record deleted by a tombstone", reason: cdc.HaltPositionMissing, want: []string{"holds no position record"},
			spoil: func(t *testing.T, b *bed) { b.writePosition(t, nil) }, out: resynced,
		},
		{
			name: "init unfinished", reason: cdc.HaltPositionMissing, fresh: true, want: []string{"init began and has not finished", "cdc-relay init --apply"},
			spoil: func(t *testing.T, b *bed) {
				b.rewriteRecord(t, func(r *cdc.PositionRecord) { r.State = cdc.RecordInitialising })
			},
			mend: func(t *testing.T, b *bed) { b.initialise(t) },
		},
		{
			name: "written by at-least-once", reason: cdc.HaltModeChanged, want: []string{"at-least-once"},
			spoil: func(t *testing.T, b *bed) {
				b.rewriteRecord(t, func(r *cdc.PositionRecord) { r.Mode = cdc.AtLeastOnce })
			},
			mend: func(t *testing.T, b *bed) { b.follow(t, "adopt --from-slot") },
		},
		{
			name: "resync that ended half-way", reason: cdc.HaltResyncUnfinished, want: []string{"resync began and has not finished"},
			spoil: func(t *testing.T, b *bed) {
				b.rewriteRecord(t, func(r *cdc.PositionRecord) { r.State = cdc.RecordResyncing })
			},
			out: func(t *testing.T, b *bed) {
				b.rewriteRecord(t, func(r *cdc.PositionRecord) { r.Generation, r.Attempt = 2, 1 })
				b.resync(t, 0)
			},
		},
	}
}

// rowHalts: the stream has something that cannot become a record.
func rowHalts() []halt {
	return []halt{
		{
			name: "topic that is not allowed", reason: cdc.HaltBadRow, reaches: true, want: []string{"elsewhere", "allowed_topics"},
			spoil: func(t *testing.T, b *bed) {
				b.exec(t, `INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload) VALUES ('elsewhere', 'k', 'test', '{"seq": 9}')`)
				b.seq++
			},
			mend: func(t *testing.T, b *bed) {
				b.replace(t, `topic: "{aggregatetype}"`, "topic: "+b.Topic)
				b.write(t, 1)
			},
		},
		{
			name: "topic that is not allowed, and the row is passed over", reason: cdc.HaltBadRow, reaches: true, want: []string{"elsewhere", "cdc-relay skip --position 0001-"},
			spoil: func(t *testing.T, b *bed) {
				b.exec(t, `INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload) VALUES ($1, 'k', 'test', '{"seq": 9}'), ('elsewhere', 'k', 'test', '{"seq": 10}'), ($1, 'k', 'test', '{"seq": 11}')`, b.Topic)
				b.seq = 11
				b.write(t, 1)
			},
			mend: func(t *testing.T, b *bed) {
				_, rest, _ := strings.Cut(b.message, "cdc-relay skip --position ")
				position, _, _ := strings.Cut(rest, " ")
				wrong := position[:len(position)-1] + "3"
				b.command(t, 5, "skip", "--position", wrong, "--confirm")
				b.follow(t, "skip --position "+position)
				if again := b.command(t, 0, "skip", "--position", position, "--confirm"); again.Done {
					t.Errorf("the second skip did something: %+v", again)
				}
				b.exec(t, `DELETE FROM public.outbox WHERE aggregatetype = 'elsewhere'`)
			},
		},
	}
}

// initialise is the way out of an init that has not finished.
func (b *bed) initialise(t *testing.T) {
	t.Helper()
	options := b.Options()
	options.Command, options.Args = "init", []string{"--apply"}
	if code := wait(t, relaytest.Start(t, options)); code != 0 {
		t.Fatalf("init ended with %d", code)
	}
}
