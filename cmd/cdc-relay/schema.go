package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// setting is one row of the schema: a leaf of Config with what its tags say
// and, after loading, where its value came from.
type setting struct {
	path    string // postgres.slot
	doc     string
	initial string // default as text; empty when there is none
	derived string // default that depends on the relay's name
	example string
	oneof   []string
	min     string
	max     string
	value   reflect.Value // addressable, inside the Config that was walked

	origin origin
}

// origin says where a value came from. Higher ranks win.
type origin struct {
	rank    int
	text    string // "default", "relay.yaml:3", "env CDC_RELAY_RELAY", "--set"
	line    int    // in the file; 0 elsewhere
	excerpt string // that line
}

// The ranks, lowest first.
const (
	rankDefault = iota
	rankFile
	rankEnv
	rankFlag
)

var (
	typeSecret   = reflect.TypeFor[Secret]()
	typeSize     = reflect.TypeFor[Size]()
	typeDuration = reflect.TypeFor[time.Duration]()
)

// settingsOf walks the Config and returns its leaves in the order of the
// struct. It panics on a struct whose tags contradict its types: a mistake of
// the programmer that every test finds.
func settingsOf(c *Config) []*setting {
	var settings []*setting
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			path := prefix + field.Tag.Get("key")
			if field.Type.Kind() == reflect.Struct {
				walk(path+".", v.Field(i))
				continue
			}
			s := &setting{
				path: path, value: v.Field(i),
				doc: field.Tag.Get("doc"), initial: field.Tag.Get("default"), derived: field.Tag.Get("derived"),
				example: field.Tag.Get("example"), min: field.Tag.Get("min"), max: field.Tag.Get("max"),
				origin: origin{rank: rankDefault, text: "default"},
			}
			if words := field.Tag.Get("oneof"); words != "" {
				s.oneof = strings.Split(words, ",")
			}
			if s.initial != "" {
				if err := s.set(s.initial); err != nil {
					panic(fmt.Sprintf("default of %s: %v", path, err))
				}
			}
			settings = append(settings, s)
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return settings
}

// env is the name of the setting's environment variable.
func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

// secret says whether the value must never be printed.
func (s *setting) secret() bool { return s.value.Type() == typeSecret }

// isMap says whether --set may name a key below the path.
func (s *setting) isMap() bool { return s.value.Kind() == reflect.Map }

// set parses text, checks it against the tags and stores it; the error names
// what is expected and, unless the value is secret, what was given. The old
// value stays on an error.
func (s *setting) set(text string) error {
	switch s.value.Kind() {
	case reflect.Slice:
		list, err := parseList(text)
		if err != nil {
			return err
		}
		s.value.Set(reflect.ValueOf(list))
		return nil
	case reflect.Map:
		table, err := parseTable(text)
		if err != nil {
			return err
		}
		s.value.Set(reflect.ValueOf(table))
		return nil
	}
	if len(s.oneof) > 0 {
		if err := checkWord(text, s.oneof); err != nil {
			return err
		}
	}
	parsed, err := parseScalar(s.value.Type(), text)
	if err != nil {
		return err
	}
	if err := s.checkBounds(parsed); err != nil {
		return err
	}
	s.value.Set(parsed)
	return nil
}

// setKey stores one entry of a map setting.
func (s *setting) setKey(key, text string) {
	if s.value.IsNil() {
		s.value.Set(reflect.MakeMap(s.value.Type()))
	}
	s.value.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(text))
}

// text is the value as it could stand in the file, secrets masked.
func (s *setting) text() string {
	switch value := s.value.Interface().(type) {
	case []string:
		return "[" + strings.Join(value, ", ") + "]"
	case map[string]string:
		entries := make([]string, 0, len(value))
		for k, v := range value {
			entries = append(entries, k+": "+v)
		}
		slices.Sort(entries)
		return "{" + strings.Join(entries, ", ") + "}"
	case time.Duration:
		return shortDuration(value)
	default:
		return fmt.Sprint(value)
	}
}

// checkBounds compares with min and max, both inclusive.
func (s *setting) checkBounds(v reflect.Value) error {
	if s.min == "" && s.max == "" {
		return nil
	}
	low, errLow := parseScalar(v.Type(), s.min)
	high, errHigh := parseScalar(v.Type(), s.max)
	if errLow != nil || errHigh != nil {
		panic(fmt.Sprintf("bounds of %s: %v, %v", s.path, errLow, errHigh))
	}
	if v.Int() < low.Int() || v.Int() > high.Int() {
		return fmt.Errorf("%s is out of range: want %s to %s", textOf(v), s.min, s.max)
	}
	return nil
}

func textOf(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return shortDuration(d)
	}
	return fmt.Sprint(v.Interface())
}

// shortDuration prints 20s and 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseScalar reads text as a value of the type.
func parseScalar(t reflect.Type, text string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	switch {
	case t == typeDuration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return v, fmt.Errorf("%q is no duration: want a number with a unit, such as 500ms, 10s or 2m", text)
		}
		v.SetInt(int64(d))
	case t == typeSize:
		size, err := parseSize(text)
		if err != nil {
			return v, err
		}
		v.SetInt(int64(size))
	case t.Kind() == reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return v, fmt.Errorf("%q is no whole number", text)
		}
		v.SetInt(n)
	case t.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return v, fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(text == "true")
	case t.Kind() == reflect.String:
		v.SetString(text)
	default:
		panic(fmt.Sprintf("setting of type %s", t))
	}
	return v, nil
}

func parseSize(text string) (Size, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/int64(u.bytes) {
			break
		}
		return Size(n) * u.bytes, nil
	}
	return 0, fmt.Errorf("%q is no size: want a whole number with a unit, such as 512KiB or 4MiB", text)
}

// checkWord refuses a word that is not in the list.
func checkWord(text string, words []string) error {
	if slices.Contains(words, text) {
		return nil
	}
	if len(words) == 1 {
		return fmt.Errorf("%q is not supported: want %s", text, words[0])
	}
	return fmt.Errorf("%q is not one of %s%s", text, strings.Join(words, ", "), suggestion(text, words))
}

// parseList reads "a, b" or a YAML list, for env and --set.
func parseList(text string) ([]string, error) {
	list := []string{}
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		if err := yaml.Load([]byte(text), &list); err != nil {
			return nil, fmt.Errorf("%q is no list: want a, b or [a, b]", text)
		}
		return list, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list, nil
}

// parseTable reads "a=b, c=d" or a YAML mapping, for env and --set.
func parseTable(text string) (map[string]string, error) {
	table := map[string]string{}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := yaml.Load([]byte(text), &table); err != nil {
			return nil, fmt.Errorf("%q is no mapping: want a=b, c=d or {a: b, c: d}", text)
		}
		return table, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("%q is no mapping: want a=b, c=d or {a: b, c: d}", text)
		}
		table[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return table, nil
}
