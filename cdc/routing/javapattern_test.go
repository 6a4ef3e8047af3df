package routing

import (
	"strings"
	"testing"
)

func TestTopicRoute(t *testing.T) {
	for _, test := range []struct{ pattern, replacement, value, want string }{
		{defaultTopicRegex, defaultTopicReplace, "User", "outbox.event.User"},
		{defaultTopicRegex, defaultTopicReplace, "", "outbox.event."},
		{"(.*)", "$1abc", "User", "Userabc"},
		{"(a)(b)?", "$1-$2.", "a", "a-."},
		{"(.*)", "$12", "x", "x2"},
		{"(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", "$12", "abcdefghijkl", "l"},
		{"(.*)", "$0$0", "x", "xx"},
		{".*", `\$1\\\{`, "x", `$1\{`},
		{"user", "u", "users", "users"}, // matches asks for the whole value
		{"[a-z]+", "u", "Users", "Users"},
		{"a|ab", "x", "ab", "xb"}, // then replaceFirst finds the first alternative
		{"(?i)USER_(?<n>.*)", "${n}", "user_x", "x"},
		{"a|b", "x", "ac", "ac"},
		{"a|b", "x", "cb", "cb"},
		{"a.b", "x", "a\nb", "a\nb"}, // the dot is no newline
		{`[\]a-z&]+`, "x", "a&b]", "x"},
		{"(?:a)(?<b>b)", "${b}", "ab", "b"},
	} {
		pattern, err := compileJavaPattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		replacement, err := parseJavaReplacement(test.replacement, pattern)
		if err != nil {
			t.Errorf("%s: %v", test.replacement, err)
			continue
		}
		if got := (topicRoute{whole: pattern, replacement: replacement}).route(test.value); got != test.want {
			t.Errorf("%s -> %s: %q became %q, want %q", test.pattern, test.replacement, test.value, got, test.want)
		}
	}
}

func TestJavaPatternsRefused(t *testing.T) {
	for _, pattern := range []string{
		"(?=a)", "(?<!a)b", `(a)\1`, "a++", "a*+", "(?>a)", // no counterpart in Go
		"[a-z&&[^b]]", "[a[b]]", "[[:alpha:]]", "[]a]", "[^]a]", `\012`, `\v`, `\s`, `\Qa\E`, "(?U)a", "(?iU:a)", // another meaning in Go
		"(", "[a", `\`, "(?x)a",
	} {
		if _, err := compileJavaPattern(pattern); err == nil {
			t.Errorf("%s is accepted", pattern)
		}
	}
}

func TestJavaReplacementsRefused(t *testing.T) {
	pattern, err := compileJavaPattern("(?<name>.*)")
	if err != nil {
		t.Fatal(err)
	}
	for _, replacement := range []string{"$", "a$b", "$2", "${", "${}", "${name", "${other}", `a\`} {
		if _, err := parseJavaReplacement(replacement, pattern); err == nil {
			t.Errorf("%s is accepted", replacement)
		}
	}
}

func FuzzJavaReplacement(f *testing.F) {
	f.Add("(?<a>.)(.*)", `$1\$${a}$22`, "text")
	f.Fuzz(func(t *testing.T, pattern, replacement, value string) {
		compiled, err := compileJavaPattern(pattern)
		if err != nil {
			return
		}
		parsed, err := parseJavaReplacement(replacement, compiled)
		if err != nil {
			return
		}
		got := topicRoute{whole: compiled, replacement: parsed}.route(value)
		if !strings.ContainsAny(replacement, `$\`) && compiled.matches(value) && !strings.Contains(got, replacement) {
			t.Fatalf("%q does not contain %q", got, replacement)
		}
	})
}
