package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Config is all that a notifier needs.
type Config struct {
	Kafka KafkaConfig
	// Pool leads to the database of the inbox. The caller closes it. Required.
	Pool  *pgxpool.Pool
	Slack SlackConfig
	// MaxAge is how old an event may be when its turn comes; older ones are
	// filtered. 0: no limit, and a new group tells the whole topic.
	MaxAge time.Duration
	// Repeat says what happens to an event that may have been posted; default
	// RepeatAtLeastOnce.
	Repeat RepeatPolicy
	// Retention is how long the inbox remembers settled events; default 30 days.
	// It has to be longer than offsets may be reset by.
	Retention time.Duration
	// DrainTimeout is how long a stop tries to note what was posted; default 20 s.
	DrainTimeout time.Duration
	// Registerer: nil registers nowhere.
	Registerer prometheus.Registerer
	// Logger: nil discards.
	Logger *slog.Logger
}

const (
	defaultRetention = 30 * 24 * time.Hour
	defaultDrain     = 20 * time.Second
	// countInterval is how often the inbox is counted and pruned.
	countInterval = time.Minute
	startRetry    = 2 * time.Second
)

// Validate returns all problems at once. It calls nobody.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := append(c.Kafka.validate(), c.Slack.validate()...)
	if c.MaxAge < 0 || c.Retention < 0 || c.DrainTimeout < 0 {
		errs = append(errs, errors.New("durations must not be negative"))
	}
	if c.Repeat != RepeatAtLeastOnce && c.Repeat != RepeatAtMostOnce {
		errs = append(errs, fmt.Errorf("repeat: %q is neither %s nor %s", c.Repeat, RepeatAtLeastOnce, RepeatAtMostOnce))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Kafka, c.Slack = c.Kafka.withDefaults(), c.Slack.withDefaults()
	if c.Repeat == "" {
		c.Repeat = RepeatAtLeastOnce
	}
	if c.Retention == 0 {
		c.Retention = defaultRetention
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrain
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// The states of Status.
const (
	StateStarting = "starting" // not a member of the group yet
	StateRunning  = "running"
	StateWaiting  = "waiting" // records wait for the reason in Trouble
	StateStopped  = "stopped"
)

// Status is the notifier's picture of itself.
type Status struct {
	State   string
	Trouble error     // why nothing moves; nil while it does
	MovedAt time.Time // when the loop last turned
}

// Notifier posts payment events to Slack. Make it with New.
type Notifier struct {
	cfg     Config
	inbox   *inbox
	metrics *metrics
	log     *slog.Logger
	status  atomic.Pointer[Status]

	mu       sync.Mutex // guards consumer
	consumer *consumer  // nil while none runs
}

// New checks the configuration and registers the metrics. It calls nobody.
func New(cfg Config) (*Notifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Pool == nil {
		return nil, errors.New("no pool given")
	}
	cfg = cfg.withDefaults()
	n := &Notifier{cfg: cfg, inbox: &inbox{pool: cfg.Pool}, metrics: newMetrics(cfg.Slack.Destination), log: cfg.Logger}
	n.metrics.lags = n.lags
	n.moved(StateStarting, nil)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(n.metrics); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return n, nil
}

// Status may be called at any time.
func (n *Notifier) Status() Status { return *n.status.Load() }

func (n *Notifier) moved(state string, trouble error) {
	n.status.Store(&Status{State: state, Trouble: trouble, MovedAt: time.Now()})
}

// Run consumes until ctx ends, and returns nil then. Servers that are away are
// waited for; it returns a *Problem where a person has to act.
func (n *Notifier) Run(ctx context.Context) error {
	defer n.moved(StateStopped, nil)
	if err := n.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d := n.newDelivery(n.metrics)
	defer d.slack.close()
	c, err := newConsumer(n.cfg.Kafka, d, n.cfg.DrainTimeout, n.metrics, n.log)
	if err != nil {
		return err
	}
	c.moved = n.turned
	n.setConsumer(c)
	defer n.setConsumer(nil)
	n.log.Info("notifier consumes", keyTopic, n.cfg.Kafka.Topic, keyGroup, n.cfg.Kafka.Group, keyDestination, n.cfg.Slack.Destination)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { c.run(ctx); return nil })
	g.Go(func() error { n.maintain(ctx); return nil })
	return g.Wait()
}

func (n *Notifier) turned(trouble error) {
	state := StateRunning
	if trouble != nil {
		state = StateWaiting
	}
	n.moved(state, trouble)
}

func (n *Notifier) newDelivery(m *metrics) *delivery {
	return &delivery{
		inbox: n.inbox, slack: newSlack(n.cfg.Slack), to: newDestination(n.cfg.Slack), repeat: n.cfg.Repeat,
		maxAge: n.cfg.MaxAge, metrics: m, log: n.log, now: time.Now,
	}
}

// prepare waits until inbox and dead letter topic are there: without them the
// first poison record would be too late to find out.
func (n *Notifier) prepare(ctx context.Context) error {
	client, err := n.cfg.Kafka.newClient(n.log)
	if err != nil {
		return err
	}
	defer client.Close()
	told := ""
	for {
		err := n.inbox.check(ctx)
		if err == nil {
			err = n.cfg.Kafka.ensureDeadLetterTopic(ctx, client)
		}
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[*Problem](err); ok {
			return err
		}
		n.moved(StateStarting, err)
		if text := err.Error(); text != told {
			n.log.Warn("notifier waits to start", keyReason, text)
			told = text
		}
		if err := sleep(ctx, startRetry); err != nil {
			return err
		}
	}
}

// maintain counts and prunes the inbox. Its errors are no reason to stop.
func (n *Notifier) maintain(ctx context.Context) {
	for {
		if err := n.maintainOnce(ctx); err != nil && ctx.Err() == nil {
			n.metrics.errors.WithLabelValues(partInbox).Inc()
			n.log.Debug("the inbox was not maintained", keyReason, err)
		}
		if sleep(ctx, countInterval) != nil {
			return
		}
	}
}

func (n *Notifier) maintainOnce(ctx context.Context) error {
	pruned, err := n.inbox.prune(ctx, n.cfg.Retention)
	n.metrics.inboxPruned.Add(float64(pruned))
	if err != nil {
		return err
	}
	if pruned > 0 {
		n.log.Info("inbox pruned", keyRows, pruned)
	}
	counts, err := n.inbox.counts(ctx)
	if err != nil {
		return err
	}
	for _, state := range inboxStates() {
		n.metrics.inboxRows.WithLabelValues(string(state)).Set(float64(counts[state]))
	}
	return nil
}

func (n *Notifier) setConsumer(c *consumer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.consumer = c
}

func (n *Notifier) lags() []partitionLag {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.consumer == nil {
		return nil
	}
	return n.consumer.lags()
}
