package notifier

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The keys of log attributes. Payloads and keys are never logged: they are
// personal data.
const (
	keyReason      = "reason"
	keyEvent       = "event_id"
	keyTopic       = "topic"
	keyPartition   = "partition"
	keyOffset      = "offset"
	keyDestination = "destination"
	keyGroup       = "group"
	keyRows        = "rows"
)

// clientLogger passes what franz-go logs on at debug level: what matters of it
// comes back as an error.
type clientLogger struct{ log *slog.Logger }

var _ kgo.Logger = clientLogger{}

// Level implements kgo.Logger.
func (l clientLogger) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l clientLogger) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Debug("kafka client: "+msg, keyvals...)
}
