package nemesis

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
)

// proxyOf chooses one of the two.
type proxyOf func(*world) *chaosproxy.Proxy

func toPostgres(w *world) *chaosproxy.Proxy { return w.toPostgres }
func toKafka(w *world) *chaosproxy.Proxy    { return w.toKafka }

// linkFaults concern everything between both relays and a server.
func linkFaults() []fault {
	var all []fault
	for _, side := range []struct {
		name  string
		proxy proxyOf
	}{{"postgres", toPostgres}, {"kafka", toKafka}} {
		all = append(all,
			fault{name: side.name + " cut", inject: cut(side.proxy)},
			fault{name: side.name + " half-open", inject: halfOpen(side.proxy)},
			fault{name: side.name + " black hole", inject: badLink(side.proxy, chaosproxy.Link{StopToServer: true, StopToClient: true})},
			fault{name: side.name + " deaf", inject: badLink(side.proxy, chaosproxy.Link{StopToClient: true})},
			fault{name: side.name + " mute", inject: badLink(side.proxy, chaosproxy.Link{StopToServer: true})},
			fault{name: side.name + " slow", inject: badLink(side.proxy, chaosproxy.Link{BytesPerSecond: 64 << 10, Latency: 5 * time.Millisecond})},
		)
	}
	return all
}

func cut(proxy proxyOf) func(testing.TB, *world) time.Time {
	return func(_ testing.TB, w *world) time.Time {
		began := time.Now()
		proxy(w).Cut()
		return began
	}
}

// halfOpen is over at once for the client; the server still believes in the
// connections.
func halfOpen(proxy proxyOf) func(testing.TB, *world) time.Time {
	return func(t testing.TB, w *world) time.Time {
		proxy(w).HalfOpen()
		cdctest.Pause(t, w.length())
		proxy(w).Release()
		return time.Now()
	}
}

func badLink(proxy proxyOf, link chaosproxy.Link) func(testing.TB, *world) time.Time {
	return func(t testing.TB, w *world) time.Time {
		proxy(w).SetLink(link)
		cdctest.Pause(t, w.length())
		proxy(w).SetLink(chaosproxy.Link{})
		return time.Now()
	}
}
