package kafka

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

func TestOneHookWatchesEveryClient(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := testConfig(anyBrokers(t))
	cfg.TransactionRing = 2
	cfg.Hooks = []kgo.Hook{kprom.NewMetrics("kafka", kprom.Registerer(registry))}
	s := ready(t, cfg)
	before := 0.0
	for life := range 2 {
		p, _ := open(t, s)
		publish(t, p, batch(0x100, ""))
		p.Close()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, family := range families {
			if family.GetName() == "kafka_write_bytes_total" {
				for _, metric := range family.GetMetric() {
					sum += metric.GetCounter().GetValue()
				}
			}
		}
		if sum <= before {
			t.Errorf("life %d: %v bytes counted, %v before it", life+1, sum, before)
		}
		before = sum
	}
}
