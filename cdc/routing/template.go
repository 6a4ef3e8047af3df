package routing

import (
	"errors"
	"fmt"
	"strings"
)

// template is text with columns in braces: "{aggregatetype}-event".
type template struct {
	text  string
	parts []templatePart
}

// templatePart is a literal or, where column is not empty, a column's value.
type templatePart struct {
	literal string
	column  string
}

// parseTemplate reads a template; {{ and }} stand for braces.
func parseTemplate(text string) (template, error) {
	t := template{text: text}
	var literal strings.Builder
	endLiteral := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, templatePart{literal: literal.String()})
			literal.Reset()
		}
	}
	for rest := text; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			literal.WriteByte(rest[0])
			rest = rest[2:]
		case rest[0] == '}':
			return template{}, fmt.Errorf("a } without { in %q; write }} for a brace", text)
		case rest[0] == '{':
			name, after, closed := strings.Cut(rest[1:], "}")
			if !closed || strings.Contains(name, "{") {
				return template{}, fmt.Errorf("a { without } in %q; write {{ for a brace", text)
			}
			if name == "" || strings.TrimSpace(name) != name {
				return template{}, fmt.Errorf("{%s} in %q names no column", name, text)
			}
			endLiteral()
			t.parts = append(t.parts, templatePart{column: name})
			rest = after
		default:
			n := strings.IndexAny(rest, "{}")
			if n < 0 {
				n = len(rest)
			}
			literal.WriteString(rest[:n])
			rest = rest[n:]
		}
	}
	endLiteral()
	if len(t.parts) == 0 {
		return template{}, errors.New("an empty template")
	}
	return t, nil
}

// constant returns the text of a template without columns.
func (t template) constant() (string, bool) {
	if len(t.parts) == 1 && t.parts[0].column == "" {
		return t.parts[0].literal, true
	}
	return "", false
}

// columnOf is the template whose only part is the named column.
func columnOf(column string) template {
	return template{text: "{" + column + "}", parts: []templatePart{{column: column}}}
}

// named returns the template with roles replaced by column names.
func (t template) named(columns map[string]string) template {
	parts := make([]templatePart, len(t.parts))
	for i, part := range t.parts {
		if column, ok := columns[part.column]; ok {
			part.column = column
		}
		parts[i] = part
	}
	return template{text: t.text, parts: parts}
}
