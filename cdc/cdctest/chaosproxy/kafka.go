package chaosproxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The names of Kafka's APIs that rules may have in mind; others are what
// kmsg.NameForKey says.
const (
	Produce            = "Produce"
	Fetch              = "Fetch"
	Metadata           = "Metadata"
	InitProducerID     = "InitProducerID"
	AddPartitionsToTxn = "AddPartitionsToTxn"
	EndTxn             = "EndTxn"
)

// request is what the answer to it has to be read with.
type request struct{ key, version int16 }

// kafkaParser remembers the requests of a connection by their correlation ids.
type kafkaParser struct {
	addresses map[string]string // never changed

	mu      sync.Mutex // guards the field below
	pending map[uint32]request
}

func (*kafkaParser) answersInOrder() bool { return true }

// next relies on the first bytes of every request: size, API key, API version,
// correlation id; and of every answer: size, correlation id. (Kafka protocol
// guide.)
func (p *kafkaParser) next(direction Direction, from *bufio.Reader) (message, error) {
	bytes, err := readSized(from, 0, true)
	if err != nil {
		return message{}, err
	}
	if direction == ToServer {
		if len(bytes) < 12 {
			return message{}, fmt.Errorf("request of %d bytes", len(bytes))
		}
		r := request{key: int16(binary.BigEndian.Uint16(bytes[4:])), version: int16(binary.BigEndian.Uint16(bytes[6:]))}
		p.remember(binary.BigEndian.Uint32(bytes[8:]), r)
		return message{name: kmsg.NameForKey(r.key), bytes: bytes}, nil
	}
	if len(bytes) < 8 {
		return message{}, fmt.Errorf("answer of %d bytes", len(bytes))
	}
	r, ok := p.recall(binary.BigEndian.Uint32(bytes[4:]))
	if !ok {
		return message{}, fmt.Errorf("answer to no request")
	}
	bytes, err = p.rewrite(r, bytes)
	return message{name: kmsg.NameForKey(r.key), bytes: bytes}, err
}

func (p *kafkaParser) remember(correlation uint32, r request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		p.pending = map[uint32]request{}
	}
	p.pending[correlation] = r
}

func (p *kafkaParser) recall(correlation uint32) (request, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.pending[correlation]
	delete(p.pending, correlation)
	return r, ok
}

// rewrite replaces the brokers' addresses in an answer by the proxy's.
func (p *kafkaParser) rewrite(r request, bytes []byte) ([]byte, error) {
	switch kmsg.Key(r.key) {
	case kmsg.Metadata, kmsg.FindCoordinator, kmsg.DescribeCluster, kmsg.Produce, kmsg.Fetch:
	default:
		return bytes, nil
	}
	response := kmsg.ResponseForKey(r.key)
	response.SetVersion(r.version)
	head := 8
	if response.IsFlexible() {
		// One byte says that the header has no tagged fields; no broker sends any.
		if len(bytes) <= head || bytes[head] != 0 {
			return nil, fmt.Errorf("answer with tagged fields in its header")
		}
		head++
	}
	if err := response.ReadFrom(bytes[head:]); err != nil {
		return nil, fmt.Errorf("read answer to %s version %d: %w", kmsg.NameForKey(r.key), r.version, err)
	}
	if !p.readdress(response) {
		return bytes, nil
	}
	rewritten := response.AppendTo(append([]byte(nil), bytes[:head]...))
	binary.BigEndian.PutUint32(rewritten, uint32(len(rewritten)-4))
	return rewritten, nil
}

// readdress says whether it changed anything.
func (p *kafkaParser) readdress(response kmsg.Response) bool {
	changed := false
	move := func(host *string, port *int32) {
		address, ok := p.addresses[net.JoinHostPort(*host, strconv.Itoa(int(*port)))]
		if !ok {
			return
		}
		newHost, newPort, err := net.SplitHostPort(address)
		if err != nil {
			panic(err) // a listener's own address
		}
		number, err := strconv.ParseUint(newPort, 10, 16)
		if err != nil {
			panic(err) // likewise
		}
		*host, *port, changed = newHost, int32(number), true
	}
	switch r := response.(type) {
	case *kmsg.MetadataResponse:
		for i := range r.Brokers {
			move(&r.Brokers[i].Host, &r.Brokers[i].Port)
		}
	case *kmsg.FindCoordinatorResponse:
		move(&r.Host, &r.Port)
		for i := range r.Coordinators {
			move(&r.Coordinators[i].Host, &r.Coordinators[i].Port)
		}
	case *kmsg.DescribeClusterResponse:
		for i := range r.Brokers {
			move(&r.Brokers[i].Host, &r.Brokers[i].Port)
		}
	case *kmsg.ProduceResponse:
		for i := range r.Brokers {
			move(&r.Brokers[i].Host, &r.Brokers[i].Port)
		}
	case *kmsg.FetchResponse:
		for i := range r.Brokers {
			move(&r.Brokers[i].Host, &r.Brokers[i].Port)
		}
	}
	return changed
}
