package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
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
	p := &producer{id: id}
	cl, err := s.newClient(
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(s.cfg.TransactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(unlimitedRecords),
		kgo.BrokerMaxWriteBytes(maxWriteBytes),
		kgo.ProducerBatchMaxBytesFn(batchBytes),
		kgo.ProducerBatchCompression(compressions[s.cfg.Compression]),
		kgo.ConcurrentTransactionsBackoff(concurrentTransactionsBackoff),
		kgo.WithHooks(p),
	)
	if err != nil {
		return nil, err
	}
	p.cl = cl
	return p, nil
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
