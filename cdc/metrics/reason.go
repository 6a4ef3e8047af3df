package metrics

import (
	"errors"
	"io"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// Reasons of failures that are not reasons of halts.
const (
	reasonTransactionTimeout = "transaction-timeout"
	reasonUndecodable        = "undecodable"
	reasonPostgres           = "postgres"
	reasonKafka              = "kafka"
	reasonNetwork            = "network"
	reasonOther              = "other"
)

// haltReasons is the closed list in package cdc; a test compares them.
func haltReasons() []cdc.HaltReason {
	return []cdc.HaltReason{
		cdc.HaltSetup, cdc.HaltPositionMissing, cdc.HaltSlotLost, cdc.HaltSlotMoved, cdc.HaltServerBehind,
		cdc.HaltDiverged, cdc.HaltOtherDatabase, cdc.HaltOtherKafka, cdc.HaltTopicRecreated, cdc.HaltStreamChanged,
		cdc.HaltModeChanged, cdc.HaltHangingTransaction, cdc.HaltBadRow, cdc.HaltStuck, cdc.HaltResyncUnfinished,
	}
}

// haltReason is the label value of a halt.
func haltReason(cause *cdc.Problem) string {
	if cause != nil && slices.Contains(haltReasons(), cause.Reason) {
		return string(cause.Reason)
	}
	return reasonOther
}

// failureReason puts a failure into a closed list. The type of an error
// decides, never its text.
func failureReason(cause *cdc.Problem) string {
	var (
		sqlState interface{ SQLState() string }
		broker   *kerr.Error
		network  net.Error
	)
	switch {
	case cause == nil:
		return reasonOther
	case slices.Contains(haltReasons(), cause.Reason):
		return string(cause.Reason)
	case cause.Treatment == cdc.Undecodable:
		return reasonUndecodable
	case errors.Is(cause, cdc.ErrTransactionTimeout):
		return reasonTransactionTimeout
	case errors.As(cause, &sqlState):
		return reasonPostgres
	case errors.As(cause, &broker):
		return reasonKafka
	case errors.As(cause, &network), errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF), errors.Is(cause, net.ErrClosed):
		return reasonNetwork
	default:
		return reasonOther
	}
}
