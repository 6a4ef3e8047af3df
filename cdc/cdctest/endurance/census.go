package endurance

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// positionHeader is where a record carries its row's position.
const positionHeader = "cdc-relay-position"

// maxFindings bounds what a Census keeps of what is wrong.
const maxFindings = 10

// Census judges the records of numbered rows while they are read. Row n says n in
// its payload, and is to come exactly once, behind the smaller numbers of its
// partition. Keys are KeyOf(n). Either the rows are one database transaction, and
// n is the serial, or each is a transaction of its own. A Census belongs to one
// goroutine.
type Census struct {
	rows     int
	single   bool     // each row is a transaction of its own
	seen     []uint64 // a bit per row
	count    int
	last     map[int32]cdc.Position // by partition
	lsn      cdc.LSN                // commit LSN of the first record
	findings []error
	more     int // findings that were not kept
}

// NewCensus expects the rows 1 ... rows as one transaction.
func NewCensus(rows int) *Census {
	return &Census{rows: rows, seen: make([]uint64, rows/64+1), last: map[int32]cdc.Position{}}
}

// NewSingleCensus expects the rows 1 ... rows as so many transactions.
func NewSingleCensus(rows int) *Census {
	c := NewCensus(rows)
	c.single = true
	return c
}

// censusKeys is how many keys there are.
const censusKeys = 1000

// KeyOf is the key of row n.
func KeyOf(n int) string { return fmt.Sprintf("k%d", n%censusKeys) }

// Count is how many different rows were seen.
func (c *Census) Count() int { return c.count }

// Take judges the next record of a partition.
func (c *Census) Take(r *kgo.Record) {
	var value struct {
		N int `json:"n"`
	}
	if err := json.Unmarshal(r.Value, &value); err != nil {
		c.find(r, fmt.Errorf("payload: %w", err))
		return
	}
	position, err := positionOf(r)
	if err != nil {
		c.find(r, err)
		return
	}
	n := value.N
	if n < 1 || n > c.rows {
		c.find(r, fmt.Errorf("row %d of %d was never written", n, c.rows))
		return
	}
	if c.lsn == 0 {
		c.lsn = position.CommitLSN
	}
	serial := n
	if c.single {
		serial = 1
	}
	last := c.last[r.Partition]
	switch {
	case !c.single && position.CommitLSN != c.lsn:
		c.find(r, fmt.Errorf("row %d has commit LSN %s, the others %s", n, position.CommitLSN, c.lsn))
	case int(position.Serial) != serial:
		c.find(r, fmt.Errorf("row %d has serial %d", n, position.Serial))
	case string(r.Key) != KeyOf(n):
		c.find(r, fmt.Errorf("row %d has key %q", n, r.Key))
	case position.Compare(last) <= 0:
		c.find(r, fmt.Errorf("row %d at %s comes after %s", n, position, last))
	default:
		c.last[r.Partition] = position
	}
	if c.seen[n/64]&(1<<(n%64)) != 0 {
		c.find(r, fmt.Errorf("row %d comes again", n))
		return
	}
	c.seen[n/64] |= 1 << (n % 64)
	c.count++
}

func (c *Census) find(r *kgo.Record, err error) {
	if len(c.findings) == maxFindings {
		c.more++
		return
	}
	c.findings = append(c.findings, fmt.Errorf("partition %d offset %d: %w", r.Partition, r.Offset, err))
}

// Err is nil when every row came exactly as it should.
func (c *Census) Err() error {
	err := errors.Join(c.findings...)
	if c.more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more", c.more))
	}
	if c.count != c.rows {
		err = errors.Join(err, fmt.Errorf("%d of %d rows came", c.count, c.rows))
	}
	return err
}

func positionOf(r *kgo.Record) (cdc.Position, error) {
	for _, header := range r.Headers {
		if header.Key == positionHeader {
			return cdc.ParsePositionHeader(string(header.Value))
		}
	}
	return cdc.Position{}, fmt.Errorf("no header %s", positionHeader)
}
