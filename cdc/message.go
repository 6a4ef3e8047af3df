package cdc

import "time"

// MessageKind tells what a Message carries.
type MessageKind uint8

// The kinds of messages that the decoder hands over. Relation messages stay
// inside the decoder; updates, deletes and truncates are counted as Ignored.
const (
	MessageBegin     MessageKind = iota + 1 // CommitLSN, CommitTime, XID
	MessageInsert                           // Row (without its serial)
	MessageCommit                           // CommitLSN, EndLSN, CommitTime
	MessageKeepalive                        // WALEnd, ReplyRequested
	MessageIgnored                          // Ignored: what was received and deliberately not published
)

// Message is one message of the replication stream in the core's words.
// (PostgreSQL docs, "Streaming Replication Protocol" and "Logical Replication
// Message Formats".) The decoder reuses the Message and what its Row
// references: both are valid until the next one is received.
type Message struct {
	Kind           MessageKind
	XID            XID
	CommitLSN      LSN       // where the commit record starts; known already at BEGIN
	EndLSN         LSN       // the byte after the commit record
	CommitTime     time.Time // on the server's clock
	WALEnd         LSN       // keepalive: everything before it was sent, if it concerns us
	ReplyRequested bool
	ServerTime     time.Time  // when the server sent the message; zero when not known
	Floor          *FloorLook // BEGIN, keepalive: a look that was not handed over yet; nil for none
	Row            Row        // Position.Serial, Generation and Timeline are set by the relay
	Ignored        string     // "update", "delete", "truncate", "message", "origin", "type"
}
