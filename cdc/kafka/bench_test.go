package kafka

import (
	"testing"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// BenchmarkPublish measures whole transactions, against KAFKA_BROKERS where set.
func BenchmarkPublish(b *testing.B) {
	brokers := anyBrokers(b)
	topic := newTopic(b, brokers, 12, nil)
	for _, size := range []struct {
		name string
		rows int
	}{{"1 row", 1}, {"100 rows", 100}, {"10000 rows", 10000}} {
		b.Run(size.name, func(b *testing.B) {
			s := ready(b, testConfig(brokers))
			p, _ := open(b, s)
			bt := &cdc.Batch{Position: position(0x100)}
			for i := range size.rows {
				bt.Records = append(bt.Records, cdc.Record{Topic: topic, Partition: int32(i % 12), Key: []byte("key"), Value: make([]byte, 300),
					Headers: []cdc.Header{{Key: "ce_id", Value: make([]byte, 36)}, {Key: "ce_type", Value: make([]byte, 20)}}})
			}
			publish(b, p, bt)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Publish(b.Context(), bt); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size.rows*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
