package kafka

import (
	"strings"
	"testing"
	"time"
)

func TestNewNamesAllProblems(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   []string // none: valid
	}{
		{"defaults", func(*Config) {}, nil},
		{"nothing set", func(c *Config) { *c = Config{} }, []string{"brokers", "relay", "transactional_id_prefix", "position_topic"}},
		{"brokers", func(c *Config) { c.Brokers = []string{"kafka", "kafka:x", ":9092"} }, []string{`"kafka"`, `"kafka:x"`, `":9092"`}},
		{"numbers", func(c *Config) {
			c.TransactionRing, c.Partitions, c.Replication, c.TransactionTimeout = -1, -1, -1, time.Hour
		}, []string{"transaction_ring", "partitions", "replication", "transaction_timeout"}},
		{"names", func(c *Config) { c.PositionTopic, c.Compression = "a b", "brotli" }, []string{"position_topic", "compression"}},
		{"half a key pair", func(c *Config) { c.TLS.CertFile = "cert.pem" }, []string{"cert_file and key_file"}},
		{"PLAIN without tls", func(c *Config) { c.SASL = SASL{"PLAIN", "u", password("p")} }, []string{"PLAIN"}},
		{"PLAIN with tls", func(c *Config) { c.SASL, c.TLS.Enabled = SASL{"PLAIN", "u", password("p")}, true }, nil},
		{"mechanism only", func(c *Config) { c.SASL.Mechanism = "SCRAM-SHA-512" }, []string{"username", "password"}},
		{"unknown mechanism", func(c *Config) { c.SASL = SASL{"GSSAPI", "u", password("p")} }, []string{"GSSAPI"}},
		{"no mechanism", func(c *Config) { c.SASL.Username = "u" }, []string{"without mechanism"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig([]string{"kafka:9092"})
			c.change(&cfg)
			_, err := New(cfg)
			if (err != nil) != (len(c.want) > 0) {
				t.Fatalf("New: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}
