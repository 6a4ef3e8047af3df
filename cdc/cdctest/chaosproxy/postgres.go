package chaosproxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// The names of PostgreSQL's messages that rules may have in mind. Others are
// named by their type byte, such as "Q".
const (
	Startup   = "startup"
	Status    = "status" // standby status update
	XLogData  = "XLogData"
	Keepalive = "keepalive"
)

// Codes in the place of a protocol version. (PostgreSQL documentation, Message
// Formats.)
const (
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

// maxMessageBytes bounds what a broken length makes the proxy allocate.
const maxMessageBytes = 1 << 30

type postgresParser struct {
	started bool // only touched in the direction to the server
}

func (*postgresParser) answersInOrder() bool { return false }

func (p *postgresParser) next(direction Direction, from *bufio.Reader) (message, error) {
	if direction == ToServer && !p.started {
		return p.startup(from)
	}
	bytes, err := readSized(from, 1, false)
	if err != nil {
		return message{}, err
	}
	return message{name: postgresName(direction, bytes), bytes: bytes}, nil
}

// startup reads a message without a type. A request for encryption is refused
// and another startup follows.
func (p *postgresParser) startup(from *bufio.Reader) (message, error) {
	bytes, err := readSized(from, 0, false)
	if err != nil {
		return message{}, err
	}
	if len(bytes) < 8 {
		return message{}, fmt.Errorf("startup message of %d bytes", len(bytes))
	}
	switch binary.BigEndian.Uint32(bytes[4:]) {
	case sslRequest, gssEncRequest:
		return message{refusal: []byte{'N'}}, nil
	}
	p.started = true
	return message{name: Startup, bytes: bytes}, nil
}

func postgresName(direction Direction, bytes []byte) string {
	if bytes[0] != 'd' || len(bytes) < 6 {
		return string(bytes[:1])
	}
	switch kind := bytes[5]; {
	case direction == ToServer && kind == 'r':
		return Status
	case direction == ToClient && kind == 'w':
		return XLogData
	case direction == ToClient && kind == 'k':
		return Keepalive
	}
	return "d"
}

// readSized reads prefix bytes, a length of four bytes and what it counts. The
// length counts itself in PostgreSQL, and does not in Kafka.
func readSized(from *bufio.Reader, prefix int, exclusive bool) ([]byte, error) {
	head := make([]byte, prefix+4)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	rest := int64(binary.BigEndian.Uint32(head[prefix:]))
	if !exclusive {
		rest -= 4
	}
	if rest < 0 || rest > maxMessageBytes {
		return nil, fmt.Errorf("message of %d bytes", rest)
	}
	bytes := append(head, make([]byte, rest)...)
	_, err := io.ReadFull(from, bytes[len(head):])
	return bytes, err
}
