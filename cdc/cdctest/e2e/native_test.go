package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest"
	"github.com/cdc-relay/cdc-relay/cdc/cdctest/relaytest"
)

// natively runs the services of compose.yaml that are ours as processes: same
// commands, same environment, in the order of depends_on. Only addresses are
// others: service:port becomes a port of loopback, and Postgres and Kafka are
// the test's.
type natively struct {
	project *types.Project
	// addresses are where service:port is, for every port that is listened on.
	addresses map[string]string
	database  string // where postgres:5432/app is, as host:port/name
	running   map[string]*relaytest.Supervisor
	begun     map[string]bool
}

func newNatively(t testing.TB) *natively {
	t.Helper()
	postgres, kafka := cdctest.SharedPostgres(t), cdctest.SharedKafka(t)
	if kafka.Real() {
		// The names of topics and group are those of compose.yaml; on the shared
		// cluster other packages may use them.
		kafka = cdctest.StartApacheKafka(t)
	}
	database := postgres.Database(t)
	makeRoles(t, postgres, database)
	dsn, err := url.Parse(postgres.DSN(database, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	n := &natively{
		project: compose(t), database: dsn.Host + dsn.Path, running: map[string]*relaytest.Supervisor{}, begun: map[string]bool{},
		addresses: map[string]string{"kafka:19092": kafka.Brokers()[0]},
	}
	for name, service := range n.project.Services {
		if service.Build == nil {
			continue
		}
		ports := listens(service)
		for i, address := range freeAddresses(t, len(ports)) {
			n.addresses[name+":"+ports[i]] = address
		}
	}
	return n
}

var hostPort = regexp.MustCompile(`[a-z0-9.-]*:\d+`)

// translate puts the addresses of here into a setting or an argument of a
// service.
func (n *natively) translate(service, text string) string {
	text = strings.ReplaceAll(text, "postgres:5432/app", n.database)
	return hostPort.ReplaceAllStringFunc(text, func(found string) string {
		host, port, err := net.SplitHostPort(found)
		if err != nil {
			return found
		}
		if host == "" || host == "127.0.0.1" {
			host = service // its own
		}
		if address, ok := n.addresses[host+":"+port]; ok {
			return address
		}
		return found
	})
}

// command is how a service is started, or with args its program otherwise.
func (n *natively) command(t testing.TB, name string, args []string) relaytest.Program {
	t.Helper()
	service := n.project.Services[name]
	line, env := []string{service.Build.Target}, []string{}
	for _, arg := range args {
		line = append(line, n.translate(name, arg))
	}
	for _, variable := range service.Environment.ToMapping().Values() {
		env = append(env, n.translate(name, variable))
	}
	p := programOf(t, line, env)
	p.Name = name
	return p
}

// up starts a service after those that it depends on.
func (n *natively) up(t testing.TB, name string) {
	t.Helper()
	service := n.project.Services[name]
	if n.begun[name] || service.Build == nil {
		return
	}
	n.begun[name] = true
	for _, on := range service.GetDependencies() {
		n.up(t, on)
	}
	program := n.command(t, name, service.Command)
	if isOnce(service) {
		relaytest.MustRun(t, program)
		return
	}
	n.running[name] = relaytest.SuperviseProgram(t, program)
	eventually(t, time.Minute, func() error {
		if err := n.running[name].Err(); err != nil {
			t.Fatal(err)
		}
		return n.healthy(t, name)
	})
}

// healthy does what the health check does.
func (n *natively) healthy(t testing.TB, name string) error {
	t.Helper()
	test := n.project.Services[name].HealthCheck.Test
	if test[0] != "CMD" {
		t.Fatalf("%s: health check %v: want CMD, the images have no shell", name, test)
	}
	switch test[1] {
	case "/bin/wget":
		return getOK(t.Context(), n.translate(name, test[len(test)-1]))
	case "/" + n.project.Services[name].Build.Target:
		p, err := relaytest.Run(t.Context(), n.command(t, name, test[2:]))
		if err == nil && p.ExitCode() != 0 {
			err = fmt.Errorf("%s: exit code %d: %s", name, p.ExitCode(), p.Output())
		}
		return err
	default:
		t.Fatalf("%s: health check %v: the image has no such program", name, test)
		return nil
	}
}

func TestComposeCommandsRunNatively(t *testing.T) {
	n := newNatively(t)
	names := n.project.ServiceNames()
	for _, name := range names {
		n.up(t, name)
	}
	if want := []string{"fake-slack", "notifier", "payment-api", "relay", "relay-standby"}; !slices.Equal(sortedKeys(n.running), want) {
		t.Fatalf("running are %v, want %v", sortedKeys(n.running), want)
	}
	api := "http://" + n.addresses["payment-api:8080"]
	first := payOnce(t, api)
	n.awaitMessage(t, first)
	// payment-api asks the relay, which on a quiet server may not know at once.
	eventually(t, time.Minute, func() error {
		var events struct {
			Data []struct {
				ID        uuid.UUID
				Published *bool
			}
		}
		call(t, http.MethodGet, api+"/v1/payments/"+first.ID.String()+"/events", nil, http.StatusOK, &events)
		if len(events.Data) != 1 || events.Data[0].ID != first.EventID || events.Data[0].Published == nil || !*events.Data[0].Published {
			return fmt.Errorf("got %+v", events.Data)
		}
		return nil
	})
	for _, target := range scrapeTargets(t) {
		if err := getOK(t.Context(), "http://"+n.addresses[target]+"/metrics"); err != nil {
			t.Errorf("what Prometheus asks: %v", err)
		}
	}

	active, standby := n.roles(t)
	n.running[active].Stop(t)
	relaytest.Admin{Addr: n.addresses[standby+":9790"]}.WaitState(t, cdc.StateStreaming, time.Minute)
	n.awaitMessage(t, payOnce(t, api))
	n.dropDay(t)
	n.awaitMessage(t, payOnce(t, api)) // without a partition of its day
	for _, name := range []string{standby, "payment-api", "notifier", "fake-slack"} {
		n.running[name].Stop(t)
	}
}

// dropDay drops the partition that has rows, by the block of the page about
// polling.
func (n *natively) dropDay(t testing.TB) {
	t.Helper()
	page := readModuleFile(t, "payment/docs/from-polling.md")
	_, block, found := strings.Cut(page, "```sql\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("the page has no SQL")
	}
	_, name, _ := strings.Cut(n.database, "/")
	conn := cdctest.SharedPostgres(t).Connect(t, name)
	rows, err := conn.Query(t.Context(), `SELECT DISTINCT tableoid::regclass::text FROM public.outbox`)
	if err != nil {
		t.Fatal(err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(days) == 0 {
		t.Fatalf("the outbox has rows of the days %v, %v", days, err)
	}
	if _, err := conn.Exec(t.Context(), `SET ROLE outbox_maintainer`); err != nil {
		t.Fatal(err)
	}
	for _, day := range days { // two around midnight
		ofDay := strings.ReplaceAll(block, "outbox_20260101", day)
		eventually(t, time.Minute, func() error {
			_, err := conn.Exec(t.Context(), ofDay)
			const notYet, locked = "55000", "55P03"
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); err != nil && (!ok || pgErr.Code != notYet && pgErr.Code != locked) {
				t.Fatal(err)
			}
			return err
		})
	}
	if _, err := conn.Exec(t.Context(), `RESET ROLE`); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM public.outbox`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Errorf("%d rows are left in the outbox, want none", left)
	}
}

func sortedKeys(m map[string]*relaytest.Supervisor) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// roles says which relay is active and which stands by.
func (n *natively) roles(t testing.TB) (active, standby string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		states := map[cdc.State]string{}
		for _, name := range []string{"relay", "relay-standby"} {
			status, err := relaytest.Admin{Addr: n.addresses[name+":9790"]}.Status(t.Context())
			if err != nil {
				return err
			}
			states[status.State] = name
		}
		active, standby = states[cdc.StateStreaming], states[cdc.StateStandby]
		if active == "" || standby == "" {
			return fmt.Errorf("the relays are %v, want one streaming and one standby", states)
		}
		return nil
	})
	return active, standby
}

// awaitMessage waits until the payment is told in the fake Slack, once.
func (n *natively) awaitMessage(t testing.TB, p paid) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		var messages []struct{ Body json.RawMessage }
		call(t, http.MethodGet, "http://"+n.addresses["fake-slack:8090"]+"/messages", nil, http.StatusOK, &messages)
		told := 0
		for _, m := range messages {
			if bytes.Contains(m.Body, []byte(p.EventID.String())) {
				told++
			}
		}
		if told != 1 {
			return fmt.Errorf("event %s is told %d times among %d messages, want once", p.EventID, told, len(messages))
		}
		return nil
	})
}

// payOnce makes a user and a reservation over HTTP, and pays.
func payOnce(t testing.TB, api string) paid {
	t.Helper()
	type made struct{ ID uuid.UUID }
	money := func(value int) map[string]any { return map[string]any{"value": value, "currency": "KRW"} }
	var user, reservation made
	call(t, http.MethodPost, api+"/v1/users", map[string]any{"balance": money(50_000)}, http.StatusCreated, &user)
	call(t, http.MethodPost, api+"/v1/reservations", map[string]any{"user_id": user.ID, "seat": "A1", "price": money(15_000)}, http.StatusCreated, &reservation)
	var answer struct{ Payments []paid }
	call(t, http.MethodPost, api+"/v1/payments", map[string]any{"user_id": user.ID, "reservation_ids": []uuid.UUID{reservation.ID}}, http.StatusCreated, &answer)
	if len(answer.Payments) != 1 || answer.Payments[0].Status != "COMPLETED" {
		t.Fatalf("got %+v, want one completed payment", answer.Payments)
	}
	return answer.Payments[0]
}

// call sends a request and reads its answer.
func call(t testing.TB, method, url string, body any, want int, into any) {
	t.Helper()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			t.Fatal(err)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, &content)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", uuid.NewString())
	response, err := client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != want {
		t.Fatalf("%s %s: got %s, want %d: %s", method, url, response.Status, want, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s %s: %v: %s", method, url, err, text)
	}
}
