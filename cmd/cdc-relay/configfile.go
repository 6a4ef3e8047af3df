package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// configFile reads the YAML file over the schema. Every problem is collected;
// nothing stops at the first.
type configFile struct {
	name     string // for messages
	lines    []string
	settings []*setting
	problems *configErrors
}

// readConfigFile stores the file's values in settings.
func readConfigFile(path string, settings []*setting, problems *configErrors) {
	content, err := os.ReadFile(path)
	if err != nil {
		// os errors name the path again; only the cause is wanted.
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		problems.add(configError{where: path, text: fmt.Sprintf("the configuration file cannot be read: %v", err)})
		return
	}
	f := &configFile{name: filepath.Base(path), lines: strings.Split(string(content), "\n"), settings: settings, problems: problems}
	f.read(content)
}

func (f *configFile) read(content []byte) {
	var document yaml.Node
	if err := yaml.Load(content, &document); err != nil {
		f.syntaxError(content, err)
		return
	}
	if len(document.Content) == 0 {
		return
	}
	f.mapping("", document.Content[0])
}

// syntaxError reports what the YAML library says. It stops at the first
// mistake in the syntax, because nothing behind it can be trusted.
func (f *configFile) syntaxError(content []byte, err error) {
	loadErr, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case !ok:
		f.problems.add(configError{where: f.name, text: "not valid YAML"})
	case loadErr.Mark.Line > 0:
		line := loadErr.Mark.Line
		text := "not valid YAML: " + loadErr.Message
		if loadErr.ContextMsg != "" {
			text += fmt.Sprintf(" (%s from line %d)", loadErr.ContextMsg, loadErr.ContextMark.Line)
		}
		f.problems.add(configError{where: f.at(line), text: text, excerpt: f.keyExcerpt(line)})
	case f.blank():
		// A file with comments only sets nothing.
	default:
		f.problems.add(configError{where: f.name, text: "not valid YAML: want one document"})
	}
}

// blank says whether the file has nothing but comments.
func (f *configFile) blank() bool {
	return !slices.ContainsFunc(f.lines, func(line string) bool {
		line = strings.TrimSpace(line)
		return line != "" && line != "---" && !strings.HasPrefix(line, "#")
	})
}

// mapping reads the keys below prefix, which is empty or ends with a dot.
func (f *configFile) mapping(prefix string, node *yaml.Node) {
	node = resolve(node)
	if isNull(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		f.add(node.Line, strings.TrimSuffix(prefix, "."), "want a mapping of keys to values", f.keyExcerpt(node.Line))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := prefix + key.Value
		if first, ok := seen[key.Value]; ok {
			f.add(key.Line, path, fmt.Sprintf("set twice, first on line %d", first), f.excerpt(key.Line, key.Value, "…"))
			continue
		}
		seen[key.Value] = key.Line
		f.entry(prefix, key, value)
	}
}

// entry reads one key: a group, a setting, or a mistake.
func (f *configFile) entry(prefix string, key, value *yaml.Node) {
	path := prefix + key.Value
	var siblings []string
	for _, s := range f.settings {
		if s.path == path {
			f.setting(s, key, value)
			return
		}
		if rest, ok := strings.CutPrefix(s.path, prefix); ok {
			sibling, _, group := strings.Cut(rest, ".")
			if group && sibling == key.Value {
				f.mapping(path+".", value)
				return
			}
			siblings = append(siblings, sibling)
		}
	}
	// The value is not shown: a misspelt key may hold a secret.
	f.add(key.Line, path, "unknown key"+f.keySuggestion(key.Value, siblings), f.excerpt(key.Line, key.Value, "…"))
}

// keySuggestion proposes a sibling, or the full path of the same key elsewhere.
func (f *configFile) keySuggestion(key string, siblings []string) string {
	if s := suggestion(key, siblings); s != "" {
		return s
	}
	for _, s := range f.settings {
		if strings.HasSuffix(s.path, "."+key) {
			return "; did you mean " + s.path + "?"
		}
	}
	return ""
}

func (f *configFile) setting(s *setting, key, value *yaml.Node) {
	value = resolve(value)
	if isNull(value) {
		return
	}
	shown := "…"
	if value.Kind == yaml.ScalarNode && !s.secret() {
		shown, _, _ = strings.Cut(value.Value, "\n")
	}
	fail := func(text string) { f.add(key.Line, s.path, text, f.excerpt(key.Line, key.Value, shown)) }
	switch s.value.Kind() {
	case reflect.Slice:
		list, ok := scalars(value, yaml.SequenceNode)
		if !ok {
			fail("want a list, such as [a, b]")
			return
		}
		s.value.Set(reflect.ValueOf(list))
	case reflect.Map:
		pairs, ok := scalars(value, yaml.MappingNode)
		if !ok {
			fail("want a mapping of names to texts, such as {a: b}")
			return
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			s.setKey(pairs[i], pairs[i+1])
		}
	default:
		if value.Kind != yaml.ScalarNode {
			fail("want one value, not a list or mapping")
			return
		}
		if err := s.set(value.Value); err != nil {
			fail(err.Error())
			return
		}
	}
	if kind := s.value.Kind(); kind == reflect.Slice || kind == reflect.Map {
		shown = s.text()
	}
	s.origin = origin{rank: rankFile, text: f.at(key.Line), line: key.Line, excerpt: f.excerpt(key.Line, key.Value, shown)}
}

// scalars returns the values of a node of the kind whose items are all scalars.
func scalars(node *yaml.Node, kind yaml.Kind) ([]string, bool) {
	if node.Kind != kind {
		return nil, false
	}
	items := make([]string, 0, len(node.Content))
	for _, item := range node.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return nil, false
		}
		items = append(items, item.Value)
	}
	return items, true
}

func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// isNull says whether the value is left out, as in "dsn_file:".
func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func (f *configFile) add(line int, path, text, excerpt string) {
	f.problems.add(configError{where: f.at(line), line: line, path: path, text: text, excerpt: excerpt})
}

func (f *configFile) at(line int) string { return fmt.Sprintf("%s:%d", f.name, line) }

// excerpt shows a line of the file as "key: value". It is made from the nodes,
// not copied: another key on the same line may hold a secret.
func (f *configFile) excerpt(line int, key, value string) string {
	indent := ""
	if line >= 1 && line <= len(f.lines) {
		text := f.lines[line-1]
		indent = text[:len(text)-len(strings.TrimLeft(text, " "))]
	}
	return fmt.Sprintf("%5d | %s%s: %s", line, indent, key, value)
}

var keyAtStart = regexp.MustCompile(`^ *(- +)?[A-Za-z_][A-Za-z0-9_]*:( |$)`)

// keyExcerpt shows only the key at the start of a line, if there is one: where
// the structure is not known, anything behind it may be a secret.
func (f *configFile) keyExcerpt(line int) string {
	if line < 1 || line > len(f.lines) {
		return ""
	}
	key := keyAtStart.FindString(f.lines[line-1])
	if key == "" {
		return ""
	}
	return fmt.Sprintf("%5d | %s…", line, strings.TrimRight(key, " ")+" ")
}
