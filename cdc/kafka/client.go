package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	dialTimeout = 10 * time.Second
	// handshakeTimeout is shorter: some plain listeners wait for the rest of what
	// they take for a huge request, and the operator should hear that soon.
	handshakeTimeout = 5 * time.Second
	// requestRetryTimeout ends the retries of everything but produce requests,
	// which only Flush's context ends.
	requestRetryTimeout = 20 * time.Second
	// concurrentTransactionsBackoff is the pause after CONCURRENT_TRANSACTIONS,
	// which under transactions v1 answers a begin right after an end. franz-go's
	// 20 ms would be a floor under the latency of a busy relay.
	concurrentTransactionsBackoff = 5 * time.Millisecond
	// firstBackoff to maxBackoff is the pause before a request is sent again.
	// franz-go's up to 2.5 s would be how long a broker has been back before
	// anybody notices.
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 400 * time.Millisecond
	// metadataMinAge is how long a produce error that needs fresh metadata waits;
	// franz-go's default of 5 s would be the latency of every leader change.
	metadataMinAge = 250 * time.Millisecond
	// maxWriteBytes is franz-go's and the broker's default bound of one request
	// (socket.request.max.bytes).
	maxWriteBytes = 100 << 20
	// maxBatchBytes bounds one record batch, so that it fits in a request.
	maxBatchBytes = maxWriteBytes - 64<<10
	// unlimitedRecords switches franz-go's buffer limit off: one transaction is
	// what it buffers, and the core bounds that. A limit would only block Produce.
	unlimitedRecords = 1 << 40
)

// compressions by their names in the configuration.
var compressions = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
	"snappy": kgo.SnappyCompression(),
	"gzip":   kgo.GzipCompression(),
}

// newClient makes a client that shares nothing with earlier ones: after an
// error all clients are thrown away, and with them whatever they believe.
func (s *Sink) newClient(extra ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(s.cfg.Brokers...),
		kgo.ClientID(s.cfg.ClientID),
		kgo.Dialer(s.dial),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RetryTimeout(requestRetryTimeout),
		kgo.RetryBackoffFn(retryBackoff),
		kgo.DisableClientMetrics(), // Close would wait for a last push
		kgo.WithLogger(clientLogger{s.log}),
		kgo.WithHooks(s.hooks...),
	}
	if mechanism := s.mechanism(); mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	cl, err := kgo.NewClient(append(opts, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	return cl, nil
}

// retryBackoff doubles up to the bound; a fifth is left to chance.
func retryBackoff(fails int) time.Duration {
	pause := min(maxBackoff, firstBackoff<<min(max(fails-1, 0), 10))
	return pause*4/5 + rand.N(pause/5)
}

// withClient lends a client to do and closes it: afterwards, or when ctx ends.
func (s *Sink) withClient(ctx context.Context, do func(cl *kgo.Client) error) error {
	s.connects.reset()
	cl, err := s.newClient()
	if err != nil {
		return err
	}
	closeOnce := sync.OnceFunc(cl.Close)
	defer closeOnce()
	defer onEnd(ctx, closeOnce)()
	return do(cl)
}

// onEnd runs closeAll when ctx ends before stop is called; stop waits for it.
// A request of franz-go notices the end of its context only after the dial that
// it waits for; closing the client cuts that short.
func onEnd(ctx context.Context, closeAll func()) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		closeAll()
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// mechanism asks for the password at every connection.
func (s *Sink) mechanism() sasl.Mechanism {
	password := func() (string, error) {
		p, err := s.cfg.SASL.Password()
		if err != nil {
			return "", &credentialError{err}
		}
		return p, nil
	}
	scramAuth := func(context.Context) (scram.Auth, error) {
		p, err := password()
		return scram.Auth{User: s.cfg.SASL.Username, Pass: p}, err
	}
	switch s.cfg.SASL.Mechanism {
	case mechanismSCRAM512:
		return scram.Sha512(scramAuth)
	case mechanismSCRAM256:
		return scram.Sha256(scramAuth)
	case mechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := password()
			return plain.Auth{User: s.cfg.SASL.Username, Pass: p}, err
		})
	default:
		return nil
	}
}

// producer is the client of one transactional id.
type producer struct {
	id string
	cl *kgo.Client
	// endTxns counts the EndTxn requests written, answered or not.
	endTxns atomic.Int32
	endedAt time.Time          // when its last transaction was committed
	used    map[cdc.Topic]bool // topics that it has written to
}

// OnBrokerWrite implements kgo.HookBrokerWrite. A request of which only a part
// was written counts: the broker may have read all that matters.
func (p *producer) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.EndTxn) {
		p.endTxns.Add(1)
	}
}

var _ kgo.HookBrokerWrite = (*producer)(nil)

// newProducer makes the client of id; batchBytes is asked once per topic.
func (s *Sink) newProducer(id string, batchBytes func(topic string) int32) (*producer, error) {
	p := &producer{id: id, used: make(map[cdc.Topic]bool)}
	cl, err := s.newClient(append(s.producing(batchBytes),
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(s.cfg.TransactionTimeout),
		kgo.ConcurrentTransactionsBackoff(concurrentTransactionsBackoff),
		kgo.WithHooks(p),
	)...)
	if err != nil {
		return nil, err
	}
	p.cl = cl
	return p, nil
}

// producing are the options of every client that produces. All are idempotent,
// which is franz-go's default.
func (s *Sink) producing(batchBytes func(topic string) int32) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ManualFlushing(), // one request for all partitions of a batch, which Flush sends
		kgo.MaxBufferedRecords(unlimitedRecords),
		kgo.BrokerMaxWriteBytes(maxWriteBytes),
		kgo.ProducerBatchMaxBytesFn(batchBytes),
		kgo.ProducerBatchCompression(compressions[s.cfg.Compression]),
	}
}

// commit ends the transaction, and makes sure that exactly this was done. A
// repeated EndTxn is an error unless the cluster bumps the epoch at the end of
// each transaction: without that, the copy that is still under way may end the
// next one (KAFKA-17754).
func (p *producer) commit(ctx context.Context, mayRepeat bool) error {
	if err := p.settleTopics(ctx); err != nil {
		return fmt.Errorf("settle topics of %s: %w", p.id, err)
	}
	before := p.endTxns.Load()
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("end transaction of %s: %w", p.id, err)
	}
	p.endedAt = time.Now()
	switch sent := p.endTxns.Load() - before; {
	case sent == 0:
		return fmt.Errorf("end transaction of %s: the client sent nothing", p.id)
	case sent > 1 && !mayRepeat:
		return fmt.Errorf("end transaction of %s: EndTxn was sent %d times, and a copy may end the next transaction", p.id, sent)
	}
	return nil
}

// settleTopics waits until the client has noted the partitions of every topic
// that this transaction was the first to write to; nothing may be buffered.
// franz-go v1.22.2 hands the records that waited for a topic's metadata to its
// partitions before it notes these, so a fast transaction may be over by then.
// EndTransaction would start the sequences of the new epoch only for partitions
// that are noted, and the next transaction would be refused for the others:
// OUT_OF_ORDER_SEQUENCE_NUMBER. Noting is done under the lock that
// AbortBufferedRecords takes before it finds that there is nothing to abort.
func (p *producer) settleTopics(ctx context.Context) error {
	return p.cl.AbortBufferedRecords(ctx)
}

// fence makes this client the only one that may use its id: when it returns nil,
// every earlier transaction of the id is decided and its markers are written
// (KIP-98, InitProducerId), and every earlier client of it is refused.
func (p *producer) fence(ctx context.Context) error {
	producerID, _, err := p.cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("fence transactional id %s: %w", p.id, err)
	}
	if producerID < 0 {
		return fmt.Errorf("fence transactional id %s: the broker gave no producer id", p.id)
	}
	return nil
}
