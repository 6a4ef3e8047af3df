package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaServer is a Kafka cluster: a fake one, an Apache Kafka of one node, or
// one that runs elsewhere and is only used. Its methods may be called from any
// goroutine.
type KafkaServer struct {
	brokers   []string
	real      bool
	root      string // empty: not ours
	stopOrder string // what makes the helper stop the server in good order
	launch    func(log *os.File) (*helper, error)

	mu     sync.Mutex // guards the field below, and orders starts and stops
	helper *helper    // nil until the first start
}

// errNotOurs is the answer to Start and Stop of a cluster that runs elsewhere.
var errNotOurs = errors.New("the cluster in KAFKA_BROKERS was not started here and is not stopped here; use a cluster of the test's own")

// Brokers returns the addresses; they stay the same over restarts.
func (s *KafkaServer) Brokers() []string { return s.brokers }

// Real says whether it is an Apache Kafka.
func (s *KafkaServer) Real() bool { return s.real }

// PID returns the process id of the server; 0 when it does not run or runs
// elsewhere.
func (s *KafkaServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.helper.pid()
}

// LogPath returns the server's log; empty where it runs elsewhere.
func (s *KafkaServer) LogPath() string {
	if s.root == "" {
		return ""
	}
	return filepath.Join(s.root, "log")
}

// Running says whether the server process is there; one that runs elsewhere is
// taken to be.
func (s *KafkaServer) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.launch == nil || s.helper.running()
}

// Start starts the server and returns when it answers. One that runs is left
// alone.
func (s *KafkaServer) Start(ctx context.Context) error {
	if s.launch == nil {
		return errNotOurs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.helper.running() {
		return nil
	}
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close() // the helper has its own
	if s.helper, err = s.launch(log); err != nil {
		return err
	}
	if err := s.awaitBrokers(ctx, s.helper.ended); err != nil {
		err = fmt.Errorf("start Kafka: %w; its log ends:\n%s", err, logTail(s.LogPath()))
		return errors.Join(err, s.helper.end(s.stopOrder))
	}
	return nil
}

// awaitBrokers waits until every broker is registered and answers. A fenced
// broker is not in the metadata. ended may be nil.
func (s *KafkaServer) awaitBrokers(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...))
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for {
		attempt, cancelAttempt := context.WithTimeout(ctx, 2*time.Second)
		metadata, err := admin.BrokerMetadata(attempt)
		cancelAttempt()
		if err == nil && len(metadata.Brokers) >= len(s.brokers) {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ended:
			return fmt.Errorf("it ended: %w", s.helper.endedErr)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", startTimeout, errors.Join(err, ctx.Err()))
		}
	}
}

// Stop stops the server in good order and returns when it is down. A server
// that is down is left alone.
//
// Known of Apache Kafka 4.4.0 with one node, by measurement: when it is stopped or
// killed between the answer to EndTxn and the markers, it may come back with the
// transaction in state CompleteCommit and without a marker in some partitions.
// Their last stable offsets move again, and their records belong to the next
// transaction of the same producer, only when there is one. In a cluster whose
// other nodes live on, another coordinator writes them. To judge anything else
// than this, let nothing commit and wait with Kafka.AwaitMarkers or
// Kafka.AwaitDecided before.
func (s *KafkaServer) Stop() error {
	return s.end(s.stopOrder)
}

// Kill ends an Apache Kafka by SIGKILL; see Stop for what it may forget. A fake
// cluster cannot be killed; see serveKfake.
func (s *KafkaServer) Kill() error {
	if s.launch != nil && !s.real {
		return errors.New("kill kfake: it does not survive that as a real broker does; stop it")
	}
	return s.end(signalOrder(syscall.SIGKILL))
}

func (s *KafkaServer) end(order string) error {
	if s.launch == nil {
		return errNotOurs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.helper.end(order); err != nil {
		return fmt.Errorf("stop Kafka: %w; its log ends:\n%s", err, logTail(s.LogPath()))
	}
	return nil
}

// Remove stops the server and deletes its directory. One that runs elsewhere is
// left alone.
func (s *KafkaServer) Remove() error {
	if s.launch == nil {
		return nil
	}
	end := s.Stop
	if s.real {
		end = s.Kill // nothing is left that an orderly stop would save
	}
	return errors.Join(end(), removeServerDir(s.root))
}
