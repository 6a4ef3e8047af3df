package postgres

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// accept handles one message of the wire and reports whether s.message is for
// the core.
func (s *stream) accept(received pgproto3.BackendMessage) (bool, error) {
	switch m := received.(type) {
	case *pgproto3.CopyData:
		return s.copyData(m.Data)
	case *pgproto3.NoticeResponse:
		return false, s.notice(m)
	case *pgproto3.ErrorResponse:
		return false, s.serverError(pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return false, &cdc.Problem{
			What: "Postgres at " + s.conn.host + " ended the replication stream",
			Why:  "the server is shutting down",
			Fix:  "wait; the relay reconnects by itself",
		}
	case *pgproto3.ParameterStatus:
		return false, nil
	default:
		return false, fmt.Errorf("replication stream: unexpected message %T", received)
	}
}

// Layout of what CopyData carries. (PostgreSQL docs, "Streaming Replication
// Protocol".)
const (
	xlogDataHeader = 1 + 8 + 8 + 8
	keepaliveBytes = 1 + 8 + 8 + 1
	statusBytes    = 1 + 4 + 1 + 8 + 8 + 8 + 8 + 1 // with the frame of CopyData
)

func (s *stream) copyData(data []byte) (bool, error) {
	switch {
	case len(data) >= xlogDataHeader && data[0] == 'w':
		has, err := s.decoder.decode(data[xlogDataHeader:], &s.message)
		if err != nil {
			return false, s.undecodable(cdc.LSN(binary.BigEndian.Uint64(data[1:])), err)
		}
		s.message.ServerTime = fromServerTime(int64(binary.BigEndian.Uint64(data[17:])))
		if s.message.Kind == cdc.MessageBegin {
			s.message.Floor = s.nextFloor()
		}
		return has, nil
	case len(data) == keepaliveBytes && data[0] == 'k':
		s.message = cdc.Message{
			Kind:           cdc.MessageKeepalive,
			WALEnd:         cdc.LSN(binary.BigEndian.Uint64(data[1:])),
			ServerTime:     fromServerTime(int64(binary.BigEndian.Uint64(data[9:]))),
			ReplyRequested: data[17] != 0,
			Floor:          s.nextFloor(),
		}
		return true, nil
	default:
		return false, s.undecodable(0, fmt.Errorf("unknown replication message of %d bytes", len(data)))
	}
}

// nextFloor is what the guard has told since the last call, or nil.
func (s *stream) nextFloor() *cdc.FloorLook {
	if s.floor.Load() == nil { // the common case writes nothing
		return nil
	}
	return s.floor.Swap(nil)
}

// undecodable says where in the WAL the relay does not know what it read.
func (s *stream) undecodable(at cdc.LSN, err error) *cdc.Problem {
	where := "at WAL position " + at.String()
	if s.decoder.open {
		where += fmt.Sprintf(", in transaction %d that commits at %s", s.decoder.xid, s.decoder.commitLSN)
	}
	return &cdc.Problem{
		Treatment: cdc.Undecodable,
		What:      "a message of the replication stream cannot be decoded " + where,
		Why:       err.Error(),
		Fix:       "report it with the server's version; " + cdc.FixPass(s.cfg.Slot),
	}
}

// notice ends the stream when the server says that it passes rows over:
// PostgreSQL 18 does so, with this SQLSTATE, where the publication did not exist
// at that point of the WAL. (PostgreSQL source, LoadPublications in pgoutput.c.)
func (s *stream) notice(m *pgproto3.NoticeResponse) error {
	pg := pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))
	if pg.Code != stateNotInState {
		s.cfg.Logger.Debug("notice from the replication stream", "severity", pg.Severity, "message", pg.Message, "sqlstate", pg.Code)
		return nil
	}
	return &cdc.Problem{
		Treatment: cdc.Halt, Reason: cdc.HaltStreamChanged,
		What: fmt.Sprintf("the server passes rows over: publication %q did not exist at this point of the WAL", s.cfg.Publication),
		Why:  serverWords(pg),
		Fix:  cdc.FixPass(s.cfg.Slot),
	}
}

// serverError tells an error at a point of the WAL, which comes again at every
// attempt, from one of the connection.
func (s *stream) serverError(pg *pgconn.PgError) error {
	switch class := pg.Code[:min(2, len(pg.Code))]; {
	case class == "54" || class == "22" || class == "XX" || class == "P0" || pg.Code == stateUndefinedObject || pg.Code == stateNotInState:
		p := serverProblem("decode the WAL", pg)
		p.Treatment = cdc.Undecodable
		p.Fix = "if the publication was missing for a while or a value is too large for text, " + cdc.FixPass(s.cfg.Slot)
		return p
	default:
		return serverProblem("stream from slot "+strconv.Quote(s.cfg.Slot), pg)
	}
}
