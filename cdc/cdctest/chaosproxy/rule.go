package chaosproxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// Direction of a message.
type Direction int

// The directions. For Kafka, ToServer is a request and ToClient the answer to
// it.
const (
	ToServer Direction = iota
	ToClient
)

// Action is what happens to a message that a rule names.
type Action int

// The actions.
const (
	// Hold keeps it, and everything behind it on its connection and in its
	// direction, until the rule is removed.
	Hold Action = iota
	// Delay is Hold for the rule's Delay.
	Delay
	// Swallow never passes it on. The rest of a PostgreSQL connection goes on; a
	// Kafka connection says nothing any more, because every later answer would
	// seem to be the answer to an earlier request.
	Swallow
	// Cut resets the connection instead of passing it on.
	Cut
	// Tear passes on the first half of it and resets the connection.
	Tear
)

// Rule names messages and what happens to them.
type Rule struct {
	Message   string // a name: Status, or that of a Kafka API such as EndTxn
	Direction Direction
	Action    Action
	Delay     time.Duration // for Delay
	Times     int           // so many messages; 0: until removed
}

// ActiveRule is a rule in force.
type ActiveRule struct {
	Rule
	hits    atomic.Int64
	removed chan struct{}
	remove  func()
}

// Hits is how many messages it was applied to.
func (r *ActiveRule) Hits() int { return int(r.hits.Load()) }

// Remove ends the rule and lets go of what it holds. It may be called again.
func (r *ActiveRule) Remove() { r.remove() }

// rules are those in force; the first one that fits is applied.
type rules struct {
	mu     sync.Mutex // guards the field below
	active []*ActiveRule
}

func (rs *rules) add(rule Rule) *ActiveRule {
	r := &ActiveRule{Rule: rule, removed: make(chan struct{})}
	r.remove = sync.OnceFunc(func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		for i, other := range rs.active {
			if other == r {
				rs.active = append(rs.active[:i:i], rs.active[i+1:]...)
			}
		}
		close(r.removed)
	})
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.active = append(rs.active, r)
	return r
}

// apply returns the rule for the message, which counts as a hit; nil is none.
func (rs *rules) apply(direction Direction, message string) *ActiveRule {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.active {
		if r.Direction != direction || r.Message != message {
			continue
		}
		if r.Times > 0 && r.Hits() >= r.Times {
			continue
		}
		r.hits.Add(1)
		return r
	}
	return nil
}
