package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

// stack is the path from payment-api to Slack with a database, topics and a
// group of its own.
type stack struct {
	kafka *cdctest.Kafka
	pool  *pgxpool.Pool // as superuser
	topic string
	slack *fakeslack.Server

	apiURL                 string
	relayAdmin             relaytest.Admin
	api, relay, notifier   *relaytest.Supervisor
	notifierReady, apiSays string // URLs of /readyz
}

// topicPartitions as in production: keys are spread, and order is per key.
const topicPartitions = 6

// startStack makes what the programs need, by their own commands, and starts
// them.
func startStack(t testing.TB) *stack {
	t.Helper()
	postgres, kafka := cdctest.SharedPostgres(t), cdctest.SharedKafka(t)
	database := postgres.Database(t)
	makeRoles(t, postgres, database)
	name := fmt.Sprintf("e2e%dx%d", os.Getpid(), rand.IntN(1e6))
	s := &stack{kafka: kafka, topic: kafka.TopicName(t), slack: &fakeslack.Server{}}
	slack := httptest.NewServer(s.slack)
	t.Cleanup(slack.Close)
	pool, err := pgxpool.New(t.Context(), postgres.DSN(database, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s.pool = pool
	addresses := freeAddresses(t, 4)
	s.apiURL = "http://" + addresses[0]
	s.apiSays, s.notifierReady = "http://"+addresses[1]+"/readyz", "http://"+addresses[3]+"/readyz"
	s.relayAdmin = relaytest.Admin{Addr: addresses[2]}
	brokers := strings.Join(kafka.Brokers(), ",")

	relaytest.MustRun(t, programOf(t, []string{"payment-api", "migrate", "up"}, []string{"PAYMENT_API_DSN=" + postgres.DSN(database, "postgres")}))
	settings := []string{
		"CDC_RELAY_RELAY=" + name,
		"CDC_RELAY_POSTGRES_DSN=" + postgres.DSN(database, "cdc_relay"),
		"CDC_RELAY_POSTGRES_ADMIN_DSN=" + postgres.DSN(database, "postgres"),
		"CDC_RELAY_KAFKA_BROKERS=" + brokers,
		"CDC_RELAY_KAFKA_PARTITIONS=" + strconv.Itoa(topicPartitions),
		"CDC_RELAY_KAFKA_REPLICATION=1",
		"CDC_RELAY_KAFKA_POSITION_TOPIC=" + kafka.TopicName(t),
		"CDC_RELAY_ROUTING_TOPIC=" + s.topic,
		"CDC_RELAY_ROUTING_ALLOWED_TOPICS=" + s.topic,
		"CDC_RELAY_ADMIN_LISTEN=" + addresses[2],
	}
	relaytest.MustRun(t, programOf(t, []string{"cdc-relay", "init", "--apply"}, settings))
	s.relay = relaytest.SuperviseProgram(t, programOf(t, []string{"cdc-relay", "run"}, settings))
	s.api = relaytest.SuperviseProgram(t, programOf(t, []string{"payment-api", "serve"}, []string{
		"PAYMENT_API_DSN=" + postgres.DSN(database, "payment_app"),
		"PAYMENT_API_LISTEN=" + addresses[0],
		"PAYMENT_API_ADMIN_LISTEN=" + addresses[1],
		"PAYMENT_API_RELAY_URL=http://" + addresses[2],
	}))
	s.notifier = relaytest.SuperviseProgram(t, programOf(t, []string{"notifier", "run", "--migrate"}, []string{
		"NOTIFIER_KAFKA_BROKERS=" + brokers,
		"NOTIFIER_KAFKA_TOPIC=" + s.topic,
		"NOTIFIER_KAFKA_GROUP=" + s.topic,
		// A killed member has its partitions back at once, not after its session.
		"NOTIFIER_KAFKA_INSTANCE_ID=notifier-1",
		"NOTIFIER_KAFKA_DEAD_LETTER_TOPIC=" + kafka.TopicName(t),
		"NOTIFIER_KAFKA_CREATE_TOPICS=true",
		"NOTIFIER_KAFKA_REPLICATION=1",
		"NOTIFIER_POSTGRES_DSN=" + postgres.DSN(database, "notifier"),
		"NOTIFIER_SLACK_WEBHOOK_URL=" + slack.URL + "/services/T0/B0/e2e",
		"NOTIFIER_SLACK_INTERVAL=0s",
		"NOTIFIER_ADMIN_LISTEN=" + addresses[3],
	}))
	s.awaitReady(t)
	return s
}

// awaitReady waits until payments are taken and notified.
func (s *stack) awaitReady(t testing.TB) {
	t.Helper()
	for _, url := range []string{s.apiSays, "http://" + s.relayAdmin.Addr + "/readyz", s.notifierReady} {
		eventually(t, time.Minute, func() error {
			if err := s.failure(); err != nil {
				t.Fatal(err)
			}
			return getOK(t.Context(), url)
		})
	}
}

// failure says why a program does not run any more.
func (s *stack) failure() error {
	for _, program := range []*relaytest.Supervisor{s.api, s.relay, s.notifier} {
		if err := program.Err(); err != nil {
			return err
		}
	}
	return nil
}

// makeRoles runs the file that compose.yaml gives to Postgres.
func makeRoles(t testing.TB, postgres *cdctest.Postgres, database string) {
	t.Helper()
	text, err := os.ReadFile("../../../cmd/payment-api/deploy/postgres/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Connect(t, database).Exec(t.Context(), string(text)); err != nil {
		t.Fatal(err)
	}
}

// client keeps no connection: a program that was killed and one that took its
// place are different servers.
func client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// getOK is nil when the URL answers 200.
func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}

// eventually polls until done returns nil.
func eventually(t testing.TB, patience time.Duration, done func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// freeAddresses returns loopback addresses that nobody else is given.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addresses := make([]string, 0, n)
	for range n {
		addresses = append(addresses, cdctest.Address(t))
	}
	return addresses
}
