package cdc

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print as the new expectation")

// TestScripts drives the step function through histories told in the domain's
// words. A block is commands, a line ----, and the effects they must have.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %d found", err, len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s: effects differ; got\n%s", file, got)
			}
		})
	}
}

// runScript returns the script with the effects that its commands had.
func runScript(t *testing.T, text string) string {
	s := newScript(t)
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		commands, _, _ := strings.Cut(block, "----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(strings.TrimRight(commands, "\n") + "\n")
		s.out.Reset()
		ran := false
		for line := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				s.command(line)
				ran = true
			}
		}
		if !ran {
			continue
		}
		out.WriteString("----\n")
		if s.out.Len() == 0 {
			s.out.WriteString("nothing\n")
		}
		out.WriteString(s.out.String())
	}
	return out.String()
}

// script is a relay with its surroundings.
type script struct {
	t      *testing.T
	out    strings.Builder
	relay  *Relay
	cfg    RelayConfig
	now    time.Time
	source SourceFacts
	kafka  KafkaFacts
	topics map[Topic]TopicFacts
	tx     Message
	action Action
	batch  *Batch
	topic  Topic
	hold   map[Action]error // actions that the script answers itself, or with an error
}

func newScript(t *testing.T) *script {
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	publication := PublicationIdentity{Name: "p", OID: 1, XMin: 2, RelOID: 3, RelXMin: 4, ViaRoot: true}
	table := TableIdentity{Name: "public.outbox", OID: 5}
	lineage := Lineage{{Timeline: 1}}
	return &script{
		t: t, now: start, hold: map[Action]error{},
		cfg: RelayConfig{
			Mode: ExactlyOnce, Limits: BatchLimits{MaxRows: 4, MaxBytes: 1 << 20, MaxPartitions: 100}, Router: scriptRouter{},
			Identity: Identity{Slot: "s", TransactionalIDs: TransactionalIDs{Prefix: "r", Ring: 1}},
		},
		source: SourceFacts{
			SystemID: "7", ServerVersion: 150000, WALLevel: "logical", Timeline: 1, Lineage: lineage, WALEnd: 0x1000,
			Slot:        &SlotFacts{Name: "s", ConfirmedFlush: 0x100, WALStatus: "reserved"},
			Publication: &PublicationFacts{PublicationIdentity: publication, PublishesInsert: true}, Table: &table,
		},
		kafka: KafkaFacts{
			ClusterID: "k", Pins: []TopicPin{{Topic: "t", ID: "id-t", Partitions: 3}},
			Topics: map[Topic]TopicFacts{"t": {TopicPin: TopicPin{Topic: "t", ID: "id-t", Partitions: 3}, MaxMessageBytes: 10000}},
			Record: &PositionRecord{
				Version: 1, State: RecordRunning, Mode: ExactlyOnce, Generation: 1, SystemID: "7", Lineage: lineage,
				RecordedLSN: 0x100, Complete: true, EndLSN: 0, Publication: publication, Table: table, KafkaClusterID: "k", At: start,
			},
		},
		topics: map[Topic]TopicFacts{
			"parked":  {TopicPin: TopicPin{Topic: "parked", ID: "id-p", Partitions: 1}, MaxMessageBytes: 10000},
			"new":     {TopicPin: TopicPin{Topic: "new", ID: "id-new", Partitions: 1}, MaxMessageBytes: 10000},
			"compact": {TopicPin: TopicPin{Topic: "compact", ID: "id-c", Partitions: 1}, MaxMessageBytes: 10000, Compacted: true},
		},
	}
}

// scriptRouter takes topic, key and size from columns of the row.
type scriptRouter struct{}

func (scriptRouter) Route(row *Row) (Record, error) {
	topic, _ := row.Value("topic")
	key, _ := row.Value("key")
	payload, _ := row.Value("payload")
	if string(topic) == "bad" {
		return Record{}, BadRow(fmt.Sprintf("row %s (event %s) routes nowhere", row.Position, row.EventID), "mend the config")
	}
	return Record{Topic: Topic(topic), Key: key, Placement: key, Value: payload, Timestamp: row.CommitTime}, nil
}

// words of one command line: name, plain arguments, and key=value pairs.
type words struct {
	name string
	args []string
	opts map[string]string
}

func parseWords(line string) words {
	fields := strings.Fields(line)
	w := words{name: fields[0], opts: map[string]string{}}
	for _, f := range fields[1:] {
		if key, value, ok := strings.Cut(f, "="); ok {
			w.opts[key] = value
		} else {
			w.args = append(w.args, f)
		}
	}
	return w
}

func (s *script) lsn(text string) LSN {
	s.t.Helper()
	lsn, err := ParseLSN(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return lsn
}

func (s *script) number(text string) uint64 {
	s.t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) command(line string) {
	s.t.Helper()
	w := parseWords(line)
	switch w.name {
	case "slot", "server", "record", "limits", "once", "publication", "topic", "parked", "delivery":
		s.describe(w)
	case "hold":
		s.hold[actionNamed(w.args[0])] = nil
	case "refuse": // refuse ACTION what...
		s.hold[actionNamed(w.args[0])] = s.problem(w)
	case "allow":
		delete(s.hold, actionNamed(w.args[0]))
	case "start":
		if s.relay == nil {
			s.relay = NewRelay(s.cfg, s.now)
		}
		s.step(Input{Kind: InputTick})
	case "tick":
		d, err := time.ParseDuration(w.args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		s.step(Input{Kind: InputTick})
	case "begin", "row", "commit", "keepalive":
		s.message(w)
	case "recorded":
		if s.cfg.Mode == ExactlyOnce {
			s.kafka.Record = s.batch.Position
		}
		s.batch = nil
		s.step(Input{Kind: InputPublished})
	case "fail": // fail what...
		s.step(Input{Kind: InputPublished, Err: s.problem(w)})
	case "lost":
		s.step(Input{Kind: InputStreamLost, Err: s.problem(w)})
	case "found":
		s.answer(ActionTopic)
	case "stop":
		s.step(Input{Kind: InputStop})
	case "closed":
		s.step(Input{Kind: InputClosed})
	default:
		s.t.Fatalf("unknown command %q", line)
	}
}

// problem is made of the words after the name; treatment=, reason= qualify it.
func (s *script) problem(w words) error {
	args := w.args
	if w.name == "refuse" {
		args = args[1:]
	}
	p := &Problem{What: strings.Join(args, " "), Reason: HaltReason(w.opts["reason"])}
	switch w.opts["treatment"] {
	case "setup":
		p.Treatment = Setup
	case "halt":
		p.Treatment = Halt
	case "undecodable":
		p.Treatment = Undecodable
	case "timeout":
		p.Err = ErrTransactionTimeout
	case "active":
		p.Err = ErrSlotActive
	}
	return p
}

func (s *script) describe(w words) {
	s.t.Helper()
	for key, value := range w.opts {
		switch w.name + " " + key {
		case "slot confirmed":
			s.source.Slot.ConfirmedFlush = s.lsn(value)
		case "slot active":
			s.source.Slot.Active = value == "true"
		case "slot gone":
			s.source.Slot = nil
		case "server end":
			s.source.WALEnd = s.lsn(value)
		case "server switch": // a promotion at this LSN
			last := &s.source.Lineage[len(s.source.Lineage)-1]
			s.source.Lineage = append(Lineage{{Timeline: last.Timeline, Switch: s.lsn(value)}}, TimelineSpan{Timeline: last.Timeline + 1})
			s.source.Timeline++
		case "server system":
			s.source.SystemID = value
		case "limits rows":
			s.cfg.Limits.MaxRows = int(s.number(value))
		case "parked topic":
			s.cfg.Park = func(row *Row, why *Problem) Record {
				size, err := strconv.Atoi(w.opts["bytes"])
				if err != nil {
					s.t.Fatal(err)
				}
				return Record{Topic: Topic(value), Key: row.EventID, Placement: row.EventID, Value: make([]byte, size), Timestamp: row.CommitTime}
			}
		case "parked bytes": // of each parked record, read there
		case "delivery mode":
			s.cfg.Mode = Mode(value)
		case "record recorded":
			s.kafka.Record.RecordedLSN = s.lsn(value)
		case "record end":
			s.kafka.Record.EndLSN = s.lsn(value)
		case "record complete":
			s.kafka.Record.Complete = value == "true"
		case "record last": // commit LSN:serial:event:xid
			parts := strings.SplitN(value, ":", 4)
			s.kafka.Record.LastRow = &LastRow{CommitLSN: s.lsn(parts[0]), Serial: uint32(s.number(parts[1])), EventID: parts[2], XID: XID(s.number(parts[3]))}
		case "record mode":
			s.kafka.Record.Mode = Mode(value)
		case "record state":
			s.kafka.Record.State = RecordState(value)
		case "record none":
			s.kafka.Record = nil
		case "once on":
			s.cfg.Once = true
		case "publication xmin":
			s.source.Publication.XMin = XID(s.number(value))
		case "topic remade":
			facts := s.kafka.Topics[Topic(value)]
			facts.ID += "-2"
			s.kafka.Topics[Topic(value)] = facts
		default:
			s.t.Fatalf("unknown description %q of %s", key, w.name)
		}
	}
}

func (s *script) message(w words) {
	s.t.Helper()
	m := Message{ServerTime: s.now}
	switch w.name {
	case "begin": // begin COMMITLSN xid=
		m.Kind, m.CommitLSN, m.CommitTime, m.XID = MessageBegin, s.lsn(w.args[0]), s.now, 700
		if age, ok := w.opts["age"]; ok {
			d, err := time.ParseDuration(age)
			if err != nil {
				s.t.Fatal(err)
			}
			m.CommitTime = m.CommitTime.Add(-d)
		}
		if xid, ok := w.opts["xid"]; ok {
			m.XID = XID(s.number(xid))
		}
		s.tx = m
	case "row": // row EVENT topic= key= bytes=
		m.Kind = MessageInsert
		m.Row = s.row(w)
	case "commit": // commit ENDLSN
		m = s.tx
		m.Kind, m.EndLSN = MessageCommit, s.lsn(w.args[0])
	case "keepalive": // keepalive WALEND [reply]
		m.Kind, m.WALEnd = MessageKeepalive, s.lsn(w.args[0])
		m.ReplyRequested = len(w.args) > 1
	}
	if !s.relay.Reading() {
		s.t.Fatalf("%s: the relay does not read now", w.name)
	}
	s.step(Input{Kind: InputMessage, Message: &m})
}

var scriptRelation = &Relation{Columns: []Column{{Name: "id"}, {Name: "topic"}, {Name: "key"}, {Name: "payload"}}}

func (s *script) row(w words) Row {
	topic, key, size := "t", []byte("k"), 1
	if v, ok := w.opts["topic"]; ok {
		topic = v
	}
	if v, ok := w.opts["key"]; ok {
		key = []byte(v)
		if v == "null" {
			key = nil
		}
	}
	if v, ok := w.opts["bytes"]; ok {
		size = int(s.number(v))
	}
	id := []byte(w.args[0])
	return Row{Relation: scriptRelation, EventID: id, Values: [][]byte{id, []byte(topic), key, make([]byte, size)}}
}

// step feeds an input, prints its effects, and answers every action of the
// start by itself unless the script holds it.
func (s *script) step(in Input) {
	eff := s.relay.Step(in, s.now)
	s.print(eff)
	if eff.Action == ActionNone {
		return
	}
	s.action, s.batch, s.topic = eff.Action, eff.Batch, eff.Topic
	switch eff.Action {
	case ActionPublish, ActionClose, ActionTopic:
		return
	}
	if err, held := s.hold[eff.Action]; held {
		if err == nil {
			return
		}
		s.step(Input{Kind: answerOf(eff.Action), Err: err})
		return
	}
	s.answer(eff.Action)
}

func (s *script) answer(action Action) {
	in := Input{Kind: answerOf(action), Source: s.source, Kafka: s.kafka, StatusInterval: 5 * time.Second}
	if action == ActionTopic {
		facts, ok := s.topics[s.topic]
		if !ok {
			in.Err = &Problem{Treatment: Setup, What: fmt.Sprintf("topic %q does not exist", s.topic)}
		}
		in.Topic = facts
	}
	if s.kafka.Record == nil {
		in.Kafka.Record = nil
	}
	s.step(in)
}

func answerOf(action Action) InputKind {
	return map[Action]InputKind{
		ActionInspect: InputInspected, ActionAdvise: InputAdvised, ActionAttach: InputAttached,
		ActionOpen: InputOpened, ActionFacts: InputFacts, ActionTopic: InputTopic,
	}[action]
}

func actionNamed(name string) Action {
	return map[string]Action{
		"inspect": ActionInspect, "advise": ActionAdvise, "attach": ActionAttach, "open": ActionOpen, "facts": ActionFacts,
	}[name]
}

func (s *script) print(eff Effects) {
	if t := eff.Transition; t != nil {
		fmt.Fprintf(&s.out, "state %s", t.To)
		if t.Cause != nil {
			fmt.Fprintf(&s.out, ": %s", t.Cause.What)
			if t.Cause.Reason != "" {
				fmt.Fprintf(&s.out, " [%s]", t.Cause.Reason)
			}
		}
		s.out.WriteString("\n")
	}
	if eff.Status {
		request := ""
		if eff.ReplyRequested {
			request = ", asks for a reply"
		}
		fmt.Fprintf(&s.out, "status %s%s\n", eff.Confirm, request)
	}
	switch eff.Action {
	case ActionTopic:
		fmt.Fprintf(&s.out, "look up topic %s\n", eff.Topic)
	case ActionClose:
		s.out.WriteString("close\n")
	case ActionPublish:
		s.printBatch(eff.Batch)
	}
	if eff.Finished {
		s.out.WriteString("finished")
		if eff.Problem != nil {
			fmt.Fprintf(&s.out, ": %s", eff.Problem.Reason)
		}
		s.out.WriteString("\n")
	}
}

func (s *script) printBatch(b *Batch) {
	p := b.Position
	s.out.WriteString("publish")
	for i := range b.Records {
		fmt.Fprintf(&s.out, " %s", b.Records[i].Position)
		if !b.Records[i].Timestamp.Equal(b.CommitTimes[i]) {
			s.out.WriteString("(old)")
		}
		if b.Records[i].Parked != "" {
			fmt.Fprintf(&s.out, "(parked in %s)", b.Records[i].Topic)
		}
	}
	if len(b.Records) == 0 {
		s.out.WriteString(" no rows")
	}
	fmt.Fprintf(&s.out, "; recorded %s", p.RecordedLSN)
	if p.LastRow != nil {
		fmt.Fprintf(&s.out, ", last %s %s", p.Position(), p.LastRow.EventID)
	}
	if !p.Complete {
		s.out.WriteString(", cut")
	}
	if len(p.Lineage) > 1 {
		fmt.Fprintf(&s.out, ", timeline %d", p.Timeline())
	}
	if b.Pins != nil {
		fmt.Fprintf(&s.out, ", pins %d", len(b.Pins))
	}
	s.out.WriteString("\n")
}

// A script can only be trusted if a wrong expectation fails it.
func TestScriptsNoticeADifference(t *testing.T) {
	text := "start\n----\nstate standby\n"
	if got := runScript(t, text); got == text {
		t.Error("a wrong expectation was accepted")
	}
	if p := (&Problem{Err: ErrSlotActive}); !errors.Is(p, ErrSlotActive) {
		t.Error("a problem hides its cause")
	}
}
