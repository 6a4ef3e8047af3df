package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	// abortInterval is how long after its timeout a transaction may wait for the
	// broker to abort it (transaction.abort.timed.out.transaction.cleanup.interval.ms).
	abortInterval = 10 * time.Second
	// undecidedPause lies between two looks at a last stable offset that has not
	// reached the high watermark.
	undecidedPause = 100 * time.Millisecond
	// markerPause lies between two looks that wait for a commit marker, which
	// follows the answer to EndTxn by milliseconds.
	markerPause = 5 * time.Millisecond
	// markerWait bounds that wait: an advisory read goes on without what is open,
	// such as a transaction that was cut off and that only fencing will end. It is
	// a part of the time that every such restart takes.
	markerWait = 500 * time.Millisecond
)

// Sink implements cdc.Sink. Its methods are called from one goroutine at a time.
type Sink struct {
	cfg      Config
	log      *slog.Logger
	connects connectLog
	hooks    []kgo.Hook // of every client
	// undecided outlives one Open, whose context may be shorter than the time
	// after which a transaction counts as hanging.
	undecided undecided
	// The constants of these names; tests change them.
	abortInterval    time.Duration
	handshakeTimeout time.Duration
	markersWritten   time.Duration
}

var _ cdc.Sink = (*Sink)(nil)

// undecided remembers since when the last stable offset stands below the high
// watermark. The zero value is that it does not.
type undecided struct {
	stable int64
	since  time.Time
}

// New checks the configuration, all problems at once. It connects to nobody.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, log: cfg.Logger, abortInterval: abortInterval, handshakeTimeout: handshakeTimeout, markersWritten: markersWritten}
	s.hooks = append(s.hooks, &s.connects)
	for _, hook := range cfg.Hooks {
		s.hooks = append(s.hooks, &sharedHook{hook: hook})
	}
	return s, nil
}

// Advise implements cdc.Sink.
func (s *Sink) Advise(ctx context.Context) (facts cdc.KafkaFacts, err error) {
	err = s.withClient(ctx, func(cl *kgo.Client) error {
		facts, err = s.advise(ctx, cl)
		return err
	})
	return facts, err
}

func (s *Sink) advise(ctx context.Context, cl *kgo.Client) (cdc.KafkaFacts, error) {
	cluster, topics, err := describeTopics(ctx, cl, s.cfg.PositionTopic)
	if err != nil {
		return cdc.KafkaFacts{}, s.explain("look up position topic "+s.cfg.PositionTopic, err)
	}
	facts := cdc.KafkaFacts{ClusterID: cluster}
	position := topics[s.cfg.PositionTopic]
	if !position.exists {
		return facts, nil
	}
	if err := s.checkPositionTopic(position); err != nil {
		return facts, err
	}
	log := s.positionLog(cl)
	at, err := log.settledBounds(ctx)
	if err != nil {
		return facts, s.explain("read the position", err)
	}
	found, err := log.newest(ctx, at.start, at.stable, false)
	if err != nil {
		return facts, s.explain("read the position", err)
	}
	if found.next < at.stable {
		return facts, s.incomplete(found.next, at.stable)
	}
	facts.Record, err = s.decodeRecord(found.record)
	return facts, err
}

// Open implements cdc.Sink. On an error nothing is left open.
func (s *Sink) Open(ctx context.Context) (cdc.Publisher, cdc.KafkaFacts, error) {
	if s.cfg.Mode == cdc.AtLeastOnce {
		return s.openAtLeastOnce(ctx)
	}
	p, facts, err := s.open(ctx)
	if err != nil {
		return nil, cdc.KafkaFacts{}, err
	}
	return p, facts, nil
}

func (s *Sink) open(ctx context.Context) (*publisher, cdc.KafkaFacts, error) {
	s.connects.reset()
	p, err := s.newPublisher()
	if err != nil {
		return nil, cdc.KafkaFacts{}, err
	}
	stop := onEnd(ctx, p.Close)
	facts, err := s.takeOver(ctx, p)
	stop()
	if err != nil {
		p.Close()
		return nil, facts, err
	}
	return p, facts, nil
}

// takeOver makes p the only one that may commit, and learns what was committed.
func (s *Sink) takeOver(ctx context.Context, p *publisher) (facts cdc.KafkaFacts, err error) {
	for _, id := range p.ring {
		if err := id.fence(ctx); err != nil {
			return facts, s.explain("fence transactional id "+id.id, err)
		}
	}
	cluster, topics, err := describeTopics(ctx, p.admin, s.cfg.PositionTopic)
	if err != nil {
		return facts, s.explain("look up position topic "+s.cfg.PositionTopic, err)
	}
	facts.ClusterID = cluster
	if p.transactionsV2, err = transactionsV2(ctx, p.admin); err != nil {
		return facts, s.explain("ask for the transaction version", err)
	}
	if position := topics[s.cfg.PositionTopic]; position.exists {
		if err := s.checkPositionTopic(position); err != nil {
			return facts, err
		}
		p.noteLimit(cdc.Topic(s.cfg.PositionTopic), position.maxMessageBytes())
		if facts.Record, facts.Pins, err = s.completeRead(ctx, p); err != nil {
			return facts, err
		}
	}
	p.pins = facts.Pins
	if facts.Topics, err = s.pinnedTopics(ctx, p, facts.Pins); err != nil {
		return facts, err
	}
	s.log.Info("kafka transactional ids fenced", "ids", strings.Join(ringIDs(s.cfg.transactionalIDs()), " "),
		"transactions_v2", p.transactionsV2, "cluster_id", facts.ClusterID)
	return facts, nil
}

func (s *Sink) positionLog(cl *kgo.Client) *positionLog {
	return &positionLog{cl: cl, topic: s.cfg.PositionTopic, relay: s.cfg.Relay}
}

// completeRead returns the final word of all earlier lives. Invariant: when it
// returns nil, every id that the newest record names is fenced, all that was
// begun below the high watermark is decided, and the read has reached the
// offset before the high watermark.
func (s *Sink) completeRead(ctx context.Context, p *publisher) (*cdc.PositionRecord, []cdc.TopicPin, error) {
	log := s.positionLog(p.admin)
	for {
		at, err := log.bounds(ctx)
		if err != nil {
			return nil, nil, s.explain("read the position", err)
		}
		found, err := log.newest(ctx, at.start, at.stable, true)
		if err != nil {
			return nil, nil, s.explain("read the position", err)
		}
		record, err := s.decodeRecord(found.record)
		if err != nil {
			return nil, nil, err
		}
		// What a fenced id had begun may just have been committed, and may name
		// further ids: look again until nobody is left to be fenced.
		if more, err := p.fenceNamed(ctx, record); err != nil || more {
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		if at.stable < at.high {
			if err := s.waitDecided(ctx, p.admin, at); err != nil {
				return nil, nil, err
			}
			continue
		}
		s.undecided = undecided{}
		if found.next < at.high {
			return nil, nil, s.incomplete(found.next, at.high)
		}
		pins, err := s.decodePins(found.pins)
		return record, pins, err
	}
}

// incomplete is the problem of a read that did not reach the end.
func (s *Sink) incomplete(next, end int64) error {
	return &cdc.Problem{
		What: fmt.Sprintf("position topic %s was read to offset %d of %d only", s.cfg.PositionTopic, next, end),
		Why:  "a position that is not proved to be the newest would publish rows twice",
		Fix:  "look at the brokers' health: the partition's leader must serve its log to the end",
	}
}

// waitDecided pauses while a transaction below the high watermark is open, and
// gives up on one that outlived its timeout and the broker's clean-up.
func (s *Sink) waitDecided(ctx context.Context, cl *kgo.Client, at bounds) error {
	now := time.Now()
	if s.undecided.since.IsZero() || s.undecided.stable != at.stable {
		s.undecided = undecided{stable: at.stable, since: now}
	}
	if waited := now.Sub(s.undecided.since); waited > s.cfg.TransactionTimeout+s.abortInterval {
		return s.hanging(ctx, cl, at, waited)
	}
	if err := pause(ctx, undecidedPause); err != nil {
		return s.explain(fmt.Sprintf("wait for the last stable offset %d of position topic %s to reach %d", at.stable, s.cfg.PositionTopic, at.high), err)
	}
	return nil
}

// hanging names who left a transaction open, as far as the broker tells.
func (s *Sink) hanging(ctx context.Context, cl *kgo.Client, at bounds, waited time.Duration) error {
	start, producers := at.stable, "unknown"
	described, err := kadm.NewClient(cl).DescribeProducers(ctx, kadm.TopicsSet{s.cfg.PositionTopic: {positionPartition: {}}})
	if err == nil {
		var names []string
		for _, producer := range described.SortedProducers() {
			if producer.CurrentTxnStartOffset >= 0 {
				names = append(names, fmt.Sprintf("%d (epoch %d, since offset %d)", producer.ProducerID, producer.ProducerEpoch, producer.CurrentTxnStartOffset))
			}
		}
		if len(names) > 0 {
			producers = strings.Join(names, ", ")
		}
	}
	return &cdc.Problem{
		Treatment: cdc.Halt,
		Reason:    cdc.HaltHangingTransaction,
		What:      fmt.Sprintf("a transaction on position topic %s is open for %s; producer id %s", s.cfg.PositionTopic, waited.Round(time.Second), producers),
		Why:       fmt.Sprintf("the last stable offset %d does not reach the high watermark %d, so the newest position cannot be known; nobody but this relay may write to the topic", at.stable, at.high),
		Fix: fmt.Sprintf("kafka-transactions.sh --bootstrap-server %s abort --topic %s --partition %d --start-offset %d",
			s.bootstrap(), s.cfg.PositionTopic, positionPartition, start),
	}
}

// decodeRecord returns nil for none.
func (s *Sink) decodeRecord(e entry) (*cdc.PositionRecord, error) {
	if e.offset < 0 || e.value == nil {
		return nil, nil
	}
	record, err := cdc.UnmarshalPositionRecord(e.value)
	if err != nil {
		return nil, fmt.Errorf("position topic %s offset %d: %w", s.cfg.PositionTopic, e.offset, err)
	}
	return record, nil
}

func (s *Sink) decodePins(e entry) ([]cdc.TopicPin, error) {
	if e.offset < 0 || e.value == nil {
		return nil, nil
	}
	var pins []cdc.TopicPin
	if err := json.Unmarshal(e.value, &pins); err != nil {
		return nil, fmt.Errorf("position topic %s offset %d: topic pins: %w", s.cfg.PositionTopic, e.offset, err)
	}
	return pins, nil
}

// pinnedTopics looks the pinned topics up; those that are gone are left out.
func (s *Sink) pinnedTopics(ctx context.Context, p *publisher, pins []cdc.TopicPin) (map[cdc.Topic]cdc.TopicFacts, error) {
	facts := make(map[cdc.Topic]cdc.TopicFacts, len(pins))
	if len(pins) == 0 {
		return facts, nil
	}
	names := make([]string, 0, len(pins))
	for _, pin := range pins {
		names = append(names, string(pin.Topic))
	}
	_, topics, err := describeTopics(ctx, p.admin, names...)
	if err != nil {
		return nil, s.explain("look up the pinned topics", err)
	}
	for _, pin := range pins {
		if state := topics[string(pin.Topic)]; state.exists {
			facts[pin.Topic] = state.facts(pin.Topic)
			p.noteLimit(pin.Topic, state.maxMessageBytes())
		}
	}
	return facts, nil
}

// transactionsV2 says whether the cluster's finalized feature level has the
// epoch bump at every transaction end (KIP-890 part 2).
func transactionsV2(ctx context.Context, cl *kgo.Client) (bool, error) {
	level, err := transactionVersion(ctx, cl)
	return level >= 2, err
}

// transactionVersion is the finalized level of the feature transaction.version;
// 0 where the brokers know none.
func transactionVersion(ctx context.Context, cl *kgo.Client) (int16, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = defaultClientID, "1"
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	for _, feature := range resp.FinalizedFeatures {
		if feature.Name == "transaction.version" {
			return feature.MaxVersionLevel, nil
		}
	}
	return 0, nil
}
