package notifier

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func goldenEntry(status event.Status, code event.FailureCode, amount event.Amount) *entry {
	p := event.Payment{
		PaymentID: "019ab5c1-7a00-7000-8000-000000000001", ReservationID: "019ab5c1-7a00-7000-8000-000000000002",
		UserID: "019ab5c1-7a00-7000-8000-000000000003", Status: status, Amount: amount, FailureCode: code,
		ExecutedAt: time.Date(2026, 11, 24, 12, 34, 56, 0, time.UTC),
	}
	return &entry{idText: "019ab5c1-7a00-7000-8000-00000000000e", eventType: p.Type(), payment: p}
}

func TestMessages(t *testing.T) {
	traced := goldenEntry(event.StatusCompleted, "", event.Amount{Value: 1234567, Currency: "EUR"})
	traced.traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, m := range map[string]Message{
		"completed": newMessage(goldenEntry(event.StatusCompleted, "", event.Amount{Value: 15000, Currency: "KRW"}), messageOptions{}),
		"failed":    newMessage(goldenEntry(event.StatusFailed, event.FailureInsufficientBalance, event.Amount{Value: 1, Currency: "KWD"}), messageOptions{}),
		"repeated":  newMessage(traced, messageOptions{possiblyRepeated: true, traceURL: "https://traces.example.org/?a=1&id={trace_id}"}),
		"sample":    SampleMessage("slack"),
	} {
		t.Run(name, func(t *testing.T) {
			content, err := m.JSON()
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, content, "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteString("\n\n" + m.Preview())
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

func TestAmounts(t *testing.T) {
	for _, test := range []struct {
		value    int64
		currency string
		want     string
	}{
		{15000, "KRW", "15,000 KRW"},
		{1, "JPY", "1 JPY"},
		{999, "JPY", "999 JPY"},
		{1000, "JPY", "1,000 JPY"},
		{5, "EUR", "0.05 EUR"},
		{15000, "EUR", "150.00 EUR"},
		{123456789, "USD", "1,234,567.89 USD"},
		{1, "KWD", "0.001 KWD"},
		{1234567, "KWD", "1,234.567 KWD"},
		{12345, "CLF", "1.2345 CLF"},
		{event.MaxValue, "KRW", "9,007,199,254,740,991 KRW"},
		{-150, "EUR", "-1.50 EUR"},
		{7, "ZZZ", "0.07 ZZZ"},
	} {
		if got := formatAmount(event.Amount{Value: test.value, Currency: test.currency}); got != test.want {
			t.Errorf("%d %s: got %q, want %q", test.value, test.currency, got, test.want)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, test := range []struct {
		in   string
		most int
		want string
	}{
		{"<!channel> & co", 100, "&lt;!channel&gt; &amp; co"},
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"ab<", 6, "ab&lt;"},
		{"ab<", 5, "ab…"},
		{"äöüß", 4, "äöüß"},
		{"äöüßx", 4, "äöü…"},
		{"", 3, ""},
	} {
		got := escape(test.in, test.most)
		if got != test.want || utf8.RuneCountInString(got) > test.most {
			t.Errorf("escape(%q, %d): got %q, want %q", test.in, test.most, got, test.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("<@U1> & `x`", 5)
	f.Add("\xff\xfe<", 2)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 1 || most > 5000 {
			return
		}
		got := escape(s, most)
		if strings.ContainsAny(got, "<>") || utf8.RuneCountInString(got) > most || !utf8.ValidString(got) {
			t.Errorf("escape(%q, %d) = %q", s, most, got)
		}
	})
}

func TestRender(t *testing.T) {
	_, payload, err := event.Encode(goldenEntry(event.StatusFailed, event.FailureExpired, event.Amount{Value: 5, Currency: "EUR"}).payment)
	if err != nil {
		t.Fatal(err)
	}
	structured := `{"specversion":"1.0","id":"019ab5c1-7a00-7000-8000-00000000000e","type":"payment.failed.v1","data":` + string(payload) + `}`
	for name, test := range map[string]struct{ content, want string }{
		"a payload":    {string(payload), sampleEventID},
		"a CloudEvent": {structured, "019ab5c1-7a00-7000-8000-00000000000e"},
	} {
		m, err := Render([]byte(test.content), "")
		if err != nil || !strings.Contains(m.Preview(), test.want) || !strings.Contains(m.Text, "expired") {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
	for name, content := range map[string]string{
		"no JSON": "payment", "no payload": "{}", "unknown type": `{"specversion":"1.0","id":"019ab5c1-7a00-7000-8000-00000000000e","type":"x","data":{}}`,
	} {
		if m, err := Render([]byte(content), ""); err == nil {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

func TestTraceID(t *testing.T) {
	for in, want := range map[string]string{
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "4bf92f3577b34da6a3ce929d0e0e4736",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": "",
		"00-short-00f067aa0ba902b7-01":                            "",
		"":                                                        "",
	} {
		if got := traceID(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
