package simulation

import (
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	downCapacity = 8 // messages that lie between server and client
	upCapacity   = 4 // statuses likewise
)

// connection is one replication connection: the walsender, the client's end,
// and what lies in between.
type connection struct {
	incarnation int32
	serverOpen  bool // the walsender lives and holds the slot
	clientOpen  bool // the client's process holds its end
	broken      bool // the network in between is gone; the server need not know

	cursor int // of history
	row    int // of the transaction at cursor; -1 before its BEGIN
	sent   cdc.LSN

	down             [downCapacity]packet
	downHead, downN  int
	up               [upCapacity]cdc.LSN
	upN              int
	copyDone         bool // behind the statuses
	guarded, altered bool // facts were read here; the guard has seen another publication
	from             cdc.XID8
	floor            cdc.FloorLook // of the guard's newest look
	looked           bool          // and it was not handed over

	// What the client has been given to read, and what it acknowledged.
	started  cdc.LSN // confirmed_flush at START_REPLICATION
	received cdc.LSN // running maximum outside of BEGIN...COMMIT
	inside   bool
	acked    cdc.LSN
}

// packet is one message of the stream in its compact form.
type packet struct {
	kind   cdc.MessageKind
	reply  bool
	xid    cdc.XID
	event  int32
	commit cdc.LSN
	end    cdc.LSN // COMMIT: end LSN; keepalive: WAL end
	at     time.Time
}

// attach is START_REPLICATION at 0/0; nil where the slot is taken.
func (w *World) attach() *connection {
	if w.connected == len(w.connections) {
		w.connections = append(w.connections, new(connection))
	}
	c := w.connections[w.connected]
	w.connected++
	s := &w.pg.slot
	*c = connection{
		incarnation: w.pg.incarnation, serverOpen: true, clientOpen: true, row: -1,
		sent: s.confirmed, started: s.confirmed,
	}
	for c.cursor < len(w.pg.history) && w.txs[w.pg.history[c.cursor]].commitLSN < s.confirmed {
		c.cursor++
	}
	s.owner = c
	return c
}

func (c *connection) push(p packet) {
	c.down[(c.downHead+c.downN)%downCapacity] = p
	c.downN++
}

func (c *connection) room() bool { return c.serverOpen && c.downN < downCapacity }

// send lets the walsender go one message on.
func (w *World) send() bool {
	c := w.pg.slot.owner
	if c == nil || !w.pg.up || !c.room() || !c.clientOpen || c.broken {
		return false
	}
	for c.cursor < len(w.pg.history) {
		tx := &w.txs[w.pg.history[c.cursor]]
		switch {
		case c.row < 0 && tx.rows == 0 && !w.plan.emptyTransactions:
			c.sent = tx.endLSN
			c.cursor++
			continue
		case c.row < 0:
			c.push(packet{kind: cdc.MessageBegin, xid: tx.xid, commit: tx.commitLSN, at: w.now})
			c.row = 0
		case c.row < int(tx.rows):
			c.push(packet{kind: cdc.MessageInsert, event: tx.first + int32(c.row), at: w.now})
			c.row++
		default:
			c.push(packet{kind: cdc.MessageCommit, commit: tx.commitLSN, end: tx.endLSN, at: w.now})
			c.sent = tx.endLSN
			c.cursor++
			c.row = -1
		}
		return true
	}
	c.sent = w.pg.walEnd
	return false
}

// keepalive sends one; a reply is requested when the server is curious or
// shuts down. In the middle of a transaction its WAL end means nothing.
func (w *World) keepalive() bool {
	c := w.pg.slot.owner
	if c == nil || !w.pg.up || !c.room() || !c.clientOpen || c.broken {
		return false
	}
	if c.guarded && !c.altered && w.pg.publication == w.publication && w.steps%2 == 0 {
		w.lookAtFloor(c)
	}
	p := packet{kind: cdc.MessageKeepalive, end: c.sent, at: w.now, reply: w.pg.shutdown}
	switch {
	case c.row >= 0:
		if w.pick(2) == 1 {
			p.end = w.txs[w.pg.history[c.cursor]].endLSN
		}
	case !w.calm && c.sent == c.started && w.pick(2) == 1:
		// Decoding begins at restart_lsn, which lies before confirmed_flush.
		p.end -= cdc.LSN(w.pick(4) * lsnUnit)
	}
	if !w.calm && w.pick(4) == 3 {
		p.reply = true
	}
	c.push(p)
	return true
}

// message hands the next packet to the client as the decoder would.
func (w *World) message(c *connection, m *cdc.Message) {
	p := &c.down[c.downHead]
	c.downHead = (c.downHead + 1) % downCapacity
	c.downN--
	*m = cdc.Message{Kind: p.kind, ServerTime: p.at}
	if c.looked && (p.kind == cdc.MessageBegin || p.kind == cdc.MessageKeepalive) {
		m.Floor, c.looked = &c.floor, false
	}
	switch p.kind {
	case cdc.MessageBegin:
		m.XID, m.CommitLSN, m.CommitTime = p.xid, p.commit, p.at
		c.inside = true
	case cdc.MessageInsert:
		m.Row.EventID = w.ids[p.event]
	case cdc.MessageCommit:
		m.CommitLSN, m.EndLSN, m.CommitTime = p.commit, p.end, p.at
		c.inside = false
		c.received = max(c.received, p.end)
	default:
		m.WALEnd, m.ReplyRequested = p.end, p.reply
		if !c.inside {
			c.received = max(c.received, p.end)
		}
	}
}

// hangUp closes the client's end; in good order CopyDone follows the statuses.
func (c *connection) hangUp(orderly bool) {
	c.clientOpen = false
	c.copyDone = orderly && !c.broken
	if !orderly {
		c.upN = 0
	}
}

// takeStatus lets the server process one status, or the end of the stream.
func (w *World) takeStatus() bool {
	c := w.pg.slot.owner
	if c == nil || !w.pg.up {
		return false
	}
	if c.upN == 0 {
		if !c.copyDone {
			return false
		}
		w.disconnect()
		return true
	}
	value := c.up[0]
	copy(c.up[:], c.up[1:c.upN])
	c.upN--
	if value == 0 {
		return true
	}
	s := &w.pg.slot
	if value < s.confirmed {
		if !w.plan.confirmedFalls {
			return true
		}
		w.rare(RareSlotWentBack)
	}
	s.confirmed = value
	if w.tracing {
		w.log("postgres: slot confirmed %s", value)
	}
	w.checkConfirmed(value)
	return true
}

// acknowledge puts a status on its way.
func (w *World) acknowledge(c *connection, value cdc.LSN) {
	if !c.serverOpen || c.broken {
		return
	}
	if c.upN == upCapacity {
		w.takeStatus()
		if !c.serverOpen {
			return
		}
	}
	c.up[c.upN] = value
	c.upN++
}

// dropByServer is a walsender that is terminated, or times out.
func (w *World) dropByServer() bool {
	if w.pg.slot.owner == nil {
		return false
	}
	w.disconnect()
	if w.tracing {
		w.log("postgres: walsender terminated")
	}
	return true
}

// breakConnection is the client's view of a network that is gone: what lies in
// between is lost, and the server goes on believing.
func (w *World) breakConnection() bool {
	c := w.pg.slot.owner
	if c == nil || c.broken {
		return false
	}
	c.broken = true
	c.upN = 0
	if w.pick(2) == 0 {
		c.downN = 0
	}
	if w.tracing {
		w.log("network: replication connection cut")
	}
	return true
}
