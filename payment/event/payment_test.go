package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pb33f/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

func example() event.Payment {
	return event.Payment{
		PaymentID: "0193a5c0-7d3e-7a61-9f0c-4b2d8f3e1a55", ReservationID: "0193a5bf-1c2d-7e3f-8a4b-5c6d7e8f9a0b", UserID: "0193a5be-0a1b-7c2d-8e3f-4a5b6c7d8e9f",
		Status: event.StatusCompleted, Amount: event.Amount{Value: 15000, Currency: "KRW"},
		ExecutedAt: time.Date(2026, 11, 24, 12, 0, 0, 123456000, time.UTC),
	}
}

func schemaOf(t testing.TB, eventType string) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(eventType + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func conforms(t testing.TB, schema *jsonschema.Schema, payload []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

func TestEncodedEventsAreReadAgainAndMatchTheSchemas(t *testing.T) {
	schemas := map[string]*jsonschema.Schema{event.TypeCompleted: schemaOf(t, event.TypeCompleted), event.TypeFailed: schemaOf(t, event.TypeFailed)}
	uuid := rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	rapid.Check(t, func(rt *rapid.T) {
		want := event.Payment{
			PaymentID: uuid.Draw(rt, "payment"), ReservationID: uuid.Draw(rt, "reservation"), UserID: uuid.Draw(rt, "user"), Status: event.StatusCompleted,
			Amount:     event.Amount{Value: rapid.Int64Range(1, event.MaxValue).Draw(rt, "value"), Currency: rapid.StringMatching(`[A-Z]{3}`).Draw(rt, "currency")},
			ExecutedAt: time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(rt, "executed")).UTC(),
		}
		if rapid.Bool().Draw(rt, "failed") {
			want.Status, want.FailureCode = event.StatusFailed, rapid.SampledFrom(event.FailureCodes()).Draw(rt, "failure")
		}
		eventType, payload, err := event.Encode(want)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := event.Decode(eventType, payload)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Error(diff)
		}
		for of, schema := range schemas {
			if err := conforms(t, schema, payload); (err == nil) != (of == eventType) {
				rt.Errorf("%s against the schema of %s: %v", payload, of, err)
			}
		}
	})
}

func TestWhatBreaksTheContractIsRefused(t *testing.T) {
	_, payload, err := event.Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	valid := string(payload)
	tests := []struct{ name, eventType, old, new, want string }{
		{"no JSON", event.TypeCompleted, "{", "", "decode"},
		{"data after it", event.TypeCompleted, `Z"}`, `Z"} {}`, "data after"},
		{"a field missing", event.TypeCompleted, `"payment_id"`, `"paymentid"`, "missing or null: payment_id"},
		{"a null field", event.TypeCompleted, `15000`, `null`, "missing or null: amount.value"},
		{"no failure code", event.TypeCompleted, `"failure_code"`, `"code"`, "missing or null: failure_code"},
		{"an empty failure code", event.TypeCompleted, `null`, `""`, "empty, not null"},
		{"a failure code of a completed payment", event.TypeCompleted, `null`, `"internal"`, "failure_code"},
		{"a type that is not the status", event.TypeFailed, "", "", `status "COMPLETED"`},
		{"an unknown failure code", event.TypeFailed, `null`, `"bored"`, "not in the list"},
		{"a fraction", event.TypeCompleted, `15000`, `15000.5`, "decode"},
		{"nothing to pay", event.TypeCompleted, `15000`, `0`, "amount.value"},
		{"more than JSON readers hold", event.TypeCompleted, `15000`, `9007199254740992`, "amount.value"},
		{"no currency code", event.TypeCompleted, `KRW`, `krw`, "amount.currency"},
		{"a UUID in capitals", event.TypeCompleted, `0193a5c0-7d3e`, `0193A5C0-7D3E`, "payment_id"},
		{"a time without zone", event.TypeCompleted, `56Z`, `56`, "decode"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			broken := strings.Replace(valid, test.old, test.new, 1)
			if test.old != "" && broken == valid {
				t.Fatalf("%s does not contain %s", valid, test.old)
			}
			_, err := event.Decode(test.eventType, []byte(broken))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if errors.Is(err, event.ErrUnknownType) {
				t.Error("a broken event of a known type is not an unknown type")
			}
		})
	}
	if _, err := event.Decode("payment.completed.v2", payload); !errors.Is(err, event.ErrUnknownType) {
		t.Errorf("got %v, want ErrUnknownType", err)
	}
	later := strings.Replace(valid, "{", `{"added_later": {"a": 1}, `, 1)
	if got, err := event.Decode(event.TypeCompleted, []byte(later)); err != nil || got != example() {
		t.Errorf("a field added later: got %v, %v", got, err)
	}
}

func TestNothingIsEncodedThatWouldNotBeRead(t *testing.T) {
	for name, change := range map[string]func(*event.Payment){
		"no id":           func(p *event.Payment) { p.PaymentID = "" },
		"no status":       func(p *event.Payment) { p.Status = "" },
		"no failure code": func(p *event.Payment) { p.Status = event.StatusFailed },
		"no amount":       func(p *event.Payment) { p.Amount = event.Amount{} },
		"no time":         func(p *event.Payment) { p.ExecutedAt = time.Time{} },
	} {
		p := example()
		change(&p)
		if _, payload, err := event.Encode(p); err == nil {
			t.Errorf("%s: encoded as %s", name, payload)
		}
	}
}

// The parts of asyncapi.yaml that have to agree with this package.
type asyncAPI struct {
	Channels map[string]struct {
		Address string `yaml:"address"`
	} `yaml:"channels"`
	Components struct {
		Messages map[string]struct {
			Name    string `yaml:"name"`
			Payload struct {
				Schema struct {
					Ref string `yaml:"$ref"`
				} `yaml:"schema"`
			} `yaml:"payload"`
			Examples []struct {
				Payload map[string]any `yaml:"payload"`
			} `yaml:"examples"`
		} `yaml:"messages"`
	} `yaml:"components"`
}

func TestDocumentsAgreeWithTheCode(t *testing.T) {
	text, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document asyncAPI
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if got := document.Channels["paymentEvent"].Address; got != event.Topic {
		t.Errorf("the channel's address is %q, want %q", got, event.Topic)
	}
	if got := len(document.Components.Messages); got != 2 {
		t.Errorf("%d messages, want 2", got)
	}
	for name, message := range document.Components.Messages {
		if got, want := message.Payload.Schema.Ref, "./"+message.Name+".schema.json"; got != want {
			t.Errorf("%s refers to %s, want %s", name, got, want)
		}
		if len(message.Examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, e := range message.Examples {
			checkExample(t, message.Name, e.Payload)
		}
		for _, e := range schemaOf(t, message.Name).Examples {
			checkExample(t, message.Name, e)
		}
	}
}

// checkExample has an example of a document read by the package and by the
// schema.
func checkExample(t *testing.T, eventType string, example any) {
	t.Helper()
	payload, err := json.Marshal(example)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := event.Decode(eventType, payload); err != nil {
		t.Errorf("%s: %v", payload, err)
	}
	if err := conforms(t, schemaOf(t, eventType), payload); err != nil {
		t.Errorf("%s: %v", payload, err)
	}
}
