package kafka

import (
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sharedHook lets one configured hook watch every client that a sink makes.
// Hooks such as kprom's register their metrics at OnNewClient and take them back
// at OnClientClosed; with several clients, and new ones in each life, the first
// would panic and the second would lose the counts. So a hook is told of the
// first client only, and of no client's end. Hooks that run for each record are
// not passed on: they would slow producing down for nothing.
type sharedHook struct {
	hook  kgo.Hook
	first sync.Once
}

var (
	_ kgo.HookNewClient           = (*sharedHook)(nil)
	_ kgo.HookBrokerConnect       = (*sharedHook)(nil)
	_ kgo.HookBrokerDisconnect    = (*sharedHook)(nil)
	_ kgo.HookBrokerWrite         = (*sharedHook)(nil)
	_ kgo.HookBrokerRead          = (*sharedHook)(nil)
	_ kgo.HookBrokerE2E           = (*sharedHook)(nil)
	_ kgo.HookBrokerThrottle      = (*sharedHook)(nil)
	_ kgo.HookProduceBatchWritten = (*sharedHook)(nil)
)

// OnNewClient implements kgo.HookNewClient.
func (h *sharedHook) OnNewClient(cl *kgo.Client) {
	if hook, ok := h.hook.(kgo.HookNewClient); ok {
		h.first.Do(func() { hook.OnNewClient(cl) })
	}
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *sharedHook) OnBrokerConnect(meta kgo.BrokerMetadata, took time.Duration, conn net.Conn, err error) {
	if hook, ok := h.hook.(kgo.HookBrokerConnect); ok {
		hook.OnBrokerConnect(meta, took, conn, err)
	}
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (h *sharedHook) OnBrokerDisconnect(meta kgo.BrokerMetadata, conn net.Conn) {
	if hook, ok := h.hook.(kgo.HookBrokerDisconnect); ok {
		hook.OnBrokerDisconnect(meta, conn)
	}
}

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (h *sharedHook) OnBrokerWrite(meta kgo.BrokerMetadata, key int16, bytes int, wait, took time.Duration, err error) {
	if hook, ok := h.hook.(kgo.HookBrokerWrite); ok {
		hook.OnBrokerWrite(meta, key, bytes, wait, took, err)
	}
}

// OnBrokerRead implements kgo.HookBrokerRead.
func (h *sharedHook) OnBrokerRead(meta kgo.BrokerMetadata, key int16, bytes int, wait, took time.Duration, err error) {
	if hook, ok := h.hook.(kgo.HookBrokerRead); ok {
		hook.OnBrokerRead(meta, key, bytes, wait, took, err)
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h *sharedHook) OnBrokerE2E(meta kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if hook, ok := h.hook.(kgo.HookBrokerE2E); ok {
		hook.OnBrokerE2E(meta, key, e2e)
	}
}

// OnBrokerThrottle implements kgo.HookBrokerThrottle.
func (h *sharedHook) OnBrokerThrottle(meta kgo.BrokerMetadata, throttle time.Duration, afterResponse bool) {
	if hook, ok := h.hook.(kgo.HookBrokerThrottle); ok {
		hook.OnBrokerThrottle(meta, throttle, afterResponse)
	}
}

// OnProduceBatchWritten implements kgo.HookProduceBatchWritten.
func (h *sharedHook) OnProduceBatchWritten(meta kgo.BrokerMetadata, topic string, partition int32, metrics kgo.ProduceBatchMetrics) {
	if hook, ok := h.hook.(kgo.HookProduceBatchWritten); ok {
		hook.OnProduceBatchWritten(meta, topic, partition, metrics)
	}
}
