package nemesis

import (
	"testing"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/chaosproxy"
)

// messageFaults hit exactly the messages on which exactly-once rests.
func messageFaults() []fault {
	request := func(message string, action chaosproxy.Action) chaosproxy.Rule {
		return chaosproxy.Rule{Message: message, Direction: chaosproxy.ToServer, Action: action}
	}
	answer := func(message string, action chaosproxy.Action) chaosproxy.Rule {
		return chaosproxy.Rule{Message: message, Direction: chaosproxy.ToClient, Action: action}
	}
	once := func(rule chaosproxy.Rule) chaosproxy.Rule { rule.Times = 1; return rule }
	slowEnd := request(chaosproxy.EndTxn, chaosproxy.Delay)
	slowEnd.Delay = 300 * time.Millisecond
	return []fault{
		{name: "Produce held", inject: rule(toKafka, request(chaosproxy.Produce, chaosproxy.Hold))},
		{name: "Produce torn", inject: rule(toKafka, once(request(chaosproxy.Produce, chaosproxy.Tear)))},
		{name: "Produce swallowed", inject: rule(toKafka, once(request(chaosproxy.Produce, chaosproxy.Swallow)))},
		{name: "Produce answer lost", inject: rule(toKafka, once(answer(chaosproxy.Produce, chaosproxy.Cut)))},
		{name: "EndTxn held", inject: rule(toKafka, request(chaosproxy.EndTxn, chaosproxy.Hold))},
		{name: "EndTxn delayed", inject: rule(toKafka, slowEnd)},
		{name: "EndTxn lost", inject: rule(toKafka, once(request(chaosproxy.EndTxn, chaosproxy.Cut)))},
		{name: "EndTxn answer lost", inject: rule(toKafka, once(answer(chaosproxy.EndTxn, chaosproxy.Cut)))},
		{name: "EndTxn answer swallowed", inject: rule(toKafka, once(answer(chaosproxy.EndTxn, chaosproxy.Swallow)))},
		{name: "EndTxn answer held", inject: rule(toKafka, answer(chaosproxy.EndTxn, chaosproxy.Hold))},
		{name: "InitProducerId held", inject: ruleAtStart(toKafka, request(chaosproxy.InitProducerID, chaosproxy.Hold))},
		{name: "InitProducerId answer lost", inject: ruleAtStart(toKafka, once(answer(chaosproxy.InitProducerID, chaosproxy.Cut)))},
		{name: "status held", inject: rule(toPostgres, request(chaosproxy.Status, chaosproxy.Hold))},
		{name: "status lost", inject: rule(toPostgres, request(chaosproxy.Status, chaosproxy.Swallow))},
		{name: "WAL torn", inject: rule(toPostgres, once(answer(chaosproxy.XLogData, chaosproxy.Tear)))},
	}
}

// rule is in force until it was applied, and if it is not for a number of
// messages, for a while longer.
func rule(proxy proxyOf, r chaosproxy.Rule) func(testing.TB, *world) time.Time {
	return func(t testing.TB, w *world) time.Time {
		active := proxy(w).Add(r)
		defer active.Remove()
		if !w.awaitHit(t, active, patience) {
			t.Fatalf("no %s came for %s", r.Message, patience)
		}
		return w.lift(t, active)
	}
}

// startPatience is how long a start may take before another one is made.
const startPatience = 10 * time.Second

// ruleAtStart is a rule for what happens only when a relay starts, so it makes
// one start. The killed one may turn out to have been the standby, or the other
// one may have been quicker than the rule: then it kills again.
func ruleAtStart(proxy proxyOf, r chaosproxy.Rule) func(testing.TB, *world) time.Time {
	return func(t testing.TB, w *world) time.Time {
		active := proxy(w).Add(r)
		defer active.Remove()
		for range int(patience / startPatience) {
			w.kill(w.active())
			if w.awaitHit(t, active, startPatience) {
				return w.lift(t, active)
			}
		}
		t.Fatalf("no %s came for %s", r.Message, patience)
		return time.Time{}
	}
}

// lift ends a rule that was applied.
func (w *world) lift(t testing.TB, r *chaosproxy.ActiveRule) time.Time {
	t.Helper()
	if r.Times == 0 {
		cdctest.Pause(t, w.length())
	}
	r.Remove()
	return time.Now()
}

// awaitHit waits until the rule was applied, and says whether it was. There is
// always load, so a message that never comes means that no relay comes back.
func (w *world) awaitHit(t testing.TB, r *chaosproxy.ActiveRule, patience time.Duration) bool {
	t.Helper()
	for ends := time.Now().Add(patience); r.Hits() == 0; cdctest.Pause(t, 5*time.Millisecond) {
		w.requireRelays(t)
		if time.Now().After(ends) {
			return false
		}
	}
	return true
}
