package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// setting is one leaf of Config.
type setting struct {
	path         string // slack.webhook_url
	initial, doc string
	value        reflect.Value
}

func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

// settingsOf lists the leaves in the order of the struct.
func settingsOf(prefix string, v reflect.Value) (settings []setting) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		path := prefix + field.Tag.Get("key")
		if field.Type.Kind() == reflect.Struct {
			settings = append(settings, settingsOf(path+".", v.Field(i))...)
			continue
		}
		settings = append(settings, setting{path: path, initial: field.Tag.Get("default"), doc: field.Tag.Get("doc"), value: v.Field(i)})
	}
	return settings
}

// set parses a text. Its errors never show it: it may be a secret.
func (s setting) set(text string) error {
	switch target := s.value.Addr().Interface().(type) {
	case *string:
		*target = text
	case *Secret:
		*target = Secret(text)
	case *[]string:
		*target = nil
		for part := range strings.SplitSeq(strings.Trim(text, "[]"), ",") {
			if part = strings.TrimSpace(part); part != "" {
				*target = append(*target, part)
			}
		}
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("want true or false")
		}
		*target = b
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("want a number")
		}
		*target = n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return errors.New("want a duration such as 90s or 1h30m, not negative")
		}
		*target = d
	default:
		panic("setting " + s.path + " has a type that nobody parses")
	}
	return nil
}

// loadConfig takes defaults, file and environment, the later ones first. It
// returns all problems at once.
func loadConfig(file string, env []string) (*Config, error) {
	c := &Config{}
	settings := settingsOf("", reflect.ValueOf(c).Elem())
	for _, s := range settings {
		if s.initial == "" {
			continue
		}
		if err := s.set(s.initial); err != nil {
			panic(s.path + ": default: " + err.Error())
		}
	}
	var problems []error
	if file != "" {
		problems = append(problems, readFile(file, settings)...)
	}
	problems = append(problems, readEnvironment(env, settings)...)
	if len(problems) == 0 {
		problems = append(problems, c.validate())
	}
	return c, errors.Join(problems...)
}

func readEnvironment(env []string, settings []setting) (problems []error) {
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || name == envConfig {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting) bool { return s.env() == name })
		if i < 0 {
			problems = append(problems, fmt.Errorf("%s is no setting", name))
			continue
		}
		if err := settings[i].set(value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	return problems
}

func readFile(path string, settings []setting) []error {
	content, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("configuration: %w", err)}
	}
	var document yaml.Node
	if err := yaml.Load(content, &document); err != nil {
		if loadErr, ok := errors.AsType[*yaml.LoadError](err); ok && loadErr.Mark.Line > 0 {
			return []error{fmt.Errorf("%s:%d: not valid YAML: %s", path, loadErr.Mark.Line, loadErr.Message)}
		}
		return []error{fmt.Errorf("%s: not valid YAML, or not one document", path)}
	}
	if len(document.Content) == 0 {
		return nil
	}
	return readMapping(path, "", document.Content[0], settings)
}

func readMapping(file, prefix string, node *yaml.Node, settings []setting) (problems []error) {
	if node.Kind == yaml.ScalarNode && node.Value == "" {
		return nil // a group with nothing in it
	}
	if node.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s:%d: %s: want keys and values", file, node.Line, strings.TrimSuffix(prefix, "."))}
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := prefix + key.Value
		bad := func(text string) {
			problems = append(problems, fmt.Errorf("%s:%d: %s: %s", file, key.Line, path, text))
		}
		at := slices.IndexFunc(settings, func(s setting) bool { return s.path == path })
		isGroup := slices.ContainsFunc(settings, func(s setting) bool { return strings.HasPrefix(s.path, path+".") })
		switch {
		case isGroup:
			problems = append(problems, readMapping(file, path+".", value, settings)...)
		case at < 0:
			bad("no such setting")
		default:
			if err := settings[at].setNode(value); err != nil {
				bad(err.Error())
			}
		}
	}
	return problems
}

func (s setting) setNode(node *yaml.Node) error {
	_, isList := s.value.Interface().([]string)
	if node.Kind == yaml.SequenceNode && isList {
		var parts []string
		for _, part := range node.Content {
			parts = append(parts, part.Value)
		}
		return s.set(strings.Join(parts, ","))
	}
	if node.Kind != yaml.ScalarNode {
		return errors.New("want one value")
	}
	if node.Value == "" && s.value.Kind() != reflect.String {
		return nil // left empty: the default
	}
	return s.set(node.Value)
}
