package routing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	// maxRowHeaders bounds the entries of one headers column.
	maxRowHeaders = 1000
	// maxPlainHeaders is up to where the parser without allocations goes; its
	// search for repeated names is quadratic.
	maxPlainHeaders = 32
	// maxHeaderNames bounds the names kept for re-use: rows choose them.
	maxHeaderNames = 1000
	// relayHeaderPrefix belongs to the relay in every format.
	relayHeaderPrefix = "cdc-relay-"
)

// headerNames gives out one string per header name, so that the name of a
// header that every row carries is allocated once.
type headerNames map[string]string

func (n headerNames) intern(name []byte) string {
	if known, ok := n[string(name)]; ok {
		return known
	}
	if len(n) >= maxHeaderNames {
		clear(n)
	}
	own := string(name)
	n[own] = own
	return own
}

// appendRowHeaders appends the entries of a headers column, a JSON object from
// string to string, in the column's order. Of a repeated name the last entry
// holds, as in jsonb.
func appendRowHeaders(headers []cdc.Header, object []byte, names headerNames) ([]cdc.Header, error) {
	if len(object) == 0 || string(object) == "{}" {
		return headers, nil
	}
	if plain, ok := appendPlainHeaders(headers, object, names); ok {
		return plain, nil
	}
	return appendAnyHeaders(headers, object)
}

// appendPlainHeaders reads the form that nearly every row has, as jsonb prints
// it: a flat object of strings without escapes. It gives up, without a verdict,
// on everything else.
func appendPlainHeaders(headers []cdc.Header, object []byte, names headerNames) ([]cdc.Header, bool) {
	first := len(headers)
	rest := object[1:]
	if object[0] != '{' {
		return nil, false
	}
	for {
		name, afterName, ok := plainString(rest)
		if !ok || len(headers)-first >= maxPlainHeaders {
			return nil, false
		}
		afterName, ok = bytes.CutPrefix(afterName, []byte(":"))
		if !ok {
			return nil, false
		}
		value, afterValue, ok := plainString(bytes.TrimPrefix(afterName, []byte(" ")))
		if !ok || len(afterValue) == 0 {
			return nil, false
		}
		headers = setHeader(headers, first, names.intern(name), value)
		switch {
		case afterValue[0] == '}' && len(afterValue) == 1:
			return headers, true
		case afterValue[0] == ',':
			rest = bytes.TrimPrefix(afterValue[1:], []byte(" "))
		default:
			return nil, false
		}
	}
}

// plainString splits off a JSON string without escapes; its content references
// the text.
func plainString(text []byte) (content, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexByte(text[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	content, rest = text[1:end+1:end+1], text[end+2:]
	for _, c := range content {
		if c == '\\' || c < ' ' {
			return nil, nil, false
		}
	}
	return content, rest, true
}

// setHeader appends a header, or replaces the value of the one of that name at
// first or after it.
func setHeader(headers []cdc.Header, first int, name string, value []byte) []cdc.Header {
	for i := first; i < len(headers); i++ {
		if headers[i].Key == name {
			headers[i].Value = value
			return headers
		}
	}
	return append(headers, cdc.Header{Key: name, Value: value})
}

// appendAnyHeaders reads any JSON and says what is wrong with it.
func appendAnyHeaders(headers []cdc.Header, object []byte) ([]cdc.Header, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("is no JSON object")
	}
	places := map[string]int{}
	for decoder.More() {
		token, err := decoder.Token()
		name, isString := token.(string)
		if err != nil || !isString {
			return nil, errors.New("is no valid JSON")
		}
		token, err = decoder.Token()
		if err != nil {
			return nil, errors.New("is no valid JSON")
		}
		value, isString := token.(string)
		if !isString {
			return nil, fmt.Errorf("has %s under %s, want a string", jsonKind(token), quoted(name))
		}
		if place, repeated := places[name]; repeated {
			headers[place].Value = []byte(value)
			continue
		}
		if len(places) == maxRowHeaders {
			return nil, fmt.Errorf("has more than %d entries", maxRowHeaders)
		}
		places[name] = len(headers)
		headers = append(headers, cdc.Header{Key: name, Value: []byte(value)})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, errors.New("is no valid JSON")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has text after its object")
	}
	return headers, nil
}

func jsonKind(token json.Token) string {
	switch token := token.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case json.Delim:
		if token == '[' {
			return "an array"
		}
		return "an object"
	default:
		return "no string"
	}
}

// headerNameProblem says why a row may not bring this header: empty when it
// may. To strip it instead would lose what the application meant to send, to
// send it would let an application speak in the relay's name.
func headerNameProblem(name string, own []string) string {
	if name == "" {
		return "has an entry without a name"
	}
	if strings.HasPrefix(name, relayHeaderPrefix) {
		return fmt.Sprintf("has the entry %s; the prefix %s is the relay's own", quoted(name), relayHeaderPrefix)
	}
	for _, reserved := range own {
		if name == reserved {
			return fmt.Sprintf("has the entry %q, a header that the relay sets itself in this format", name)
		}
	}
	return ""
}
