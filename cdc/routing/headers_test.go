package routing

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

func TestAppendRowHeaders(t *testing.T) {
	var many []string
	var manyWant []cdc.Header
	for i := range maxPlainHeaders + 1 {
		many = append(many, fmt.Sprintf(`"h%d": "v"`, i))
		manyWant = append(manyWant, header(fmt.Sprintf("h%d", i), "v"))
	}
	for _, test := range []struct {
		name, text string
		want       []cdc.Header
	}{
		{"NULL", "", nil},
		{"empty", "{}", nil},
		{"empty with blanks", " { } ", nil},
		{"one", `{"a": "b"}`, []cdc.Header{header("a", "b")}},
		{"in the column's order", `{"b": "1", "a": "2"}`, []cdc.Header{header("b", "1"), header("a", "2")}},
		{"compact", `{"b":"1","a":""}`, []cdc.Header{header("b", "1"), header("a", "")}},
		{"escapes", `{"a\u0062": "\"\\\n\u00e9"}`, []cdc.Header{header("ab", "\"\\\né")}},
		{"the last of a repeated name", `{"a": "1", "b": "2", "a": "3"}`, []cdc.Header{header("a", "3"), header("b", "2")}},
		{"the last of a repeated name with escapes", `{"a": "1", "\u0061": "3"}`, []cdc.Header{header("a", "3")}},
		{"more than the plain parser takes", "{" + strings.Join(many, ", ") + "}", manyWant},
		{"white space of json", "{\n\t\"a\" : \"b\"\n}", []cdc.Header{header("a", "b")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := appendRowHeaders(nil, []byte(test.text), headerNames{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendRowHeadersRefuses(t *testing.T) {
	var many []string
	for i := range maxRowHeaders + 1 {
		many = append(many, fmt.Sprintf(`"h%d": ""`, i))
	}
	for _, test := range []struct{ text, want string }{
		{`[]`, "is no JSON object"},
		{`null`, "is no JSON object"},
		{`"a"`, "is no JSON object"},
		{`{`, "is no valid JSON"},
		{`{"a": "b"`, "is no valid JSON"},
		{`{"a"}`, "is no valid JSON"},
		{"{\"a\": \"\x01\"}", "is no valid JSON"},
		{`{"a": "b"} {}`, "has text after its object"},
		{`{"a": 1}`, `a number under "a"`},
		{`{"a": true}`, `a boolean under "a"`},
		{`{"a": null}`, `null under "a"`},
		{`{"a": {}}`, `an object under "a"`},
		{`{"x": "y", "a": []}`, `an array under "a"`},
		{"{" + strings.Join(many, ",") + "}", "more than 1000 entries"},
	} {
		t.Run(test.text[:min(len(test.text), 20)], func(t *testing.T) {
			if got, err := appendRowHeaders(nil, []byte(test.text), headerNames{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want %s", got, err, test.want)
			}
		})
	}
}

// A headers column is read as encoding/json reads it, or refused.
func FuzzAppendRowHeaders(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a": "b", "c": "d"}`, `{"a":"b","a":"c"}`, `{"\u0061": "\n"}`, `{"a": 1}`, `{"a": "b"} x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 || !utf8.Valid(text) {
			return // NULL, and what no server sends
		}
		headers, err := appendRowHeaders(nil, text, headerNames{})
		var want map[string]string
		wantErr := json.Unmarshal(text, &want)
		if err != nil {
			if wantErr == nil && len(want) <= maxRowHeaders && want != nil && !strings.Contains(err.Error(), "null under") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		got := map[string]string{}
		for _, h := range headers {
			got[h.Key] = string(h.Value)
		}
		if len(got) != len(headers) {
			t.Fatalf("%q: a name twice in %v", text, headers)
		}
		if wantErr != nil || !cmp.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v, %v", text, got, want, wantErr)
		}
	})
}
