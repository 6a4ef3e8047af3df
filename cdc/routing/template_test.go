package routing

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTemplate(t *testing.T) {
	literal := func(s string) templatePart { return templatePart{literal: s} }
	name := func(s string) templatePart { return templatePart{column: s} }
	for _, test := range []struct {
		text string
		want []templatePart
		err  string
	}{
		{text: "events", want: []templatePart{literal("events")}},
		{text: "{a}", want: []templatePart{name("a")}},
		{text: "{a}-event", want: []templatePart{name("a"), literal("-event")}},
		{text: "x.{a}{b}", want: []templatePart{literal("x."), name("a"), name("b")}},
		{text: "{{{a}}}", want: []templatePart{literal("{"), name("a"), literal("}")}},
		{text: "{{a}}", want: []templatePart{literal("{a}")}},
		{text: "{My Column}", want: []templatePart{name("My Column")}},
		{text: "", err: "empty template"},
		{text: "{", err: "a { without }"},
		{text: "a}", err: "a } without {"},
		{text: "{}", err: "names no column"},
		{text: "{ a}", err: "names no column"},
		{text: "{a{b}", err: "a { without }"},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := parseTemplate(test.text)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.parts, cmp.AllowUnexported(templatePart{})); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever parses can be printed and parsed again to the same parts.
func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{"{aggregatetype}-event", "{{{a}}}", "a}}b", "{a}{b}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseTemplate(text)
		if err != nil {
			return
		}
		var printed strings.Builder
		for _, part := range first.parts {
			if part.column != "" {
				printed.WriteString("{" + part.column + "}")
				continue
			}
			printed.WriteString(strings.NewReplacer("{", "{{", "}", "}}").Replace(part.literal))
		}
		if printed.String() != text {
			t.Fatalf("%q parsed to %v, which prints %q", text, first.parts, printed.String())
		}
	})
}
