package main

import (
	"fmt"
	"slices"
	"strings"
)

// envPrefix begins the name of every environment variable of the relay.
const envPrefix = "CDC_RELAY_"

// configInput is where the configuration comes from, lowest precedence first.
type configInput struct {
	file string   // empty: none
	env  []string // NAME=value, as os.Environ returns them
	set  []string // path=value, from --set and the flags that stand for it
}

// loadedConfig is the effective configuration and its story.
type loadedConfig struct {
	Config
	settings []*setting
	warnings []string
}

// loadConfig lays file, env and flags over the defaults, then derives and
// validates. The error is a *configErrors with all problems; the warnings are
// filled in any case.
func loadConfig(in configInput) (*loadedConfig, error) {
	c := &loadedConfig{}
	c.settings = settingsOf(&c.Config)
	problems := &configErrors{}
	if in.file != "" {
		readConfigFile(in.file, c.settings, problems)
	}
	c.readEnv(in.env, problems)
	for _, assignment := range in.set {
		c.readFlag(assignment, problems)
	}
	c.deriveDefaults()
	c.pickSecretSources(problems)
	c.validate(problems)
	return c, problems.errorOrNil()
}

// readEnv takes the variables that name a setting; an empty value counts as
// not set, because compose files and manifests pass variables on like that.
func (c *loadedConfig) readEnv(env []string, problems *configErrors) {
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || ignoredEnv(name) {
			continue
		}
		i := slices.IndexFunc(c.settings, func(s *setting) bool { return s.env() == name })
		if i < 0 {
			c.warnings = append(c.warnings, fmt.Sprintf("environment variable %s names no setting and is ignored%s", name, c.envSuggestion(name)))
			continue
		}
		s := c.settings[i]
		c.assign(s, value, origin{rank: rankEnv, text: "env " + name}, problems)
	}
}

// envSuggestion compares what follows the prefix, which all names share.
func (c *loadedConfig) envSuggestion(name string) string {
	names := []string{strings.TrimPrefix(envConfig, envPrefix)}
	for _, s := range c.settings {
		names = append(names, strings.TrimPrefix(s.env(), envPrefix))
	}
	return strings.Replace(suggestion(strings.TrimPrefix(name, envPrefix), names), "mean ", "mean "+envPrefix, 1)
}

// envConfig names the configuration file.
const envConfig = envPrefix + "CONFIG"

// ignoredEnv knows variables with our prefix that are no settings: the file's
// name, the crash tests' switch, and what Kubernetes injects into every pod
// beside a Service that is called cdc-relay.
func ignoredEnv(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	return name == envConfig || rest == "FAILPOINT" ||
		strings.HasPrefix(rest, "SERVICE_") || rest == "PORT" || strings.HasPrefix(rest, "PORT_")
}

// readFlag takes one path=value; below a map setting the path goes on with the
// entry's name.
func (c *loadedConfig) readFlag(assignment string, problems *configErrors) {
	path, value, ok := strings.Cut(assignment, "=")
	if !ok {
		problems.add(configError{where: "--set", text: fmt.Sprintf("%q is not path=value", assignment)})
		return
	}
	from := origin{rank: rankFlag, text: "--set"}
	var paths []string
	for _, s := range c.settings {
		paths = append(paths, s.path)
		if s.path == path {
			if s.secret() {
				problems.add(configError{where: "--set", path: path, text: "arguments are visible to everybody on the machine: use " + path + "_file or the environment variable " + s.env()})
				return
			}
			c.assign(s, value, from, problems)
			return
		}
		if key, ok := strings.CutPrefix(path, s.path+"."); ok && s.isMap() {
			s.setKey(key, value)
			s.origin = from
			return
		}
	}
	// The value is not shown: a misspelt path may come with a secret.
	problems.add(configError{where: "--set", path: path, text: "unknown setting" + suggestion(path, paths)})
}

func (c *loadedConfig) assign(s *setting, value string, from origin, problems *configErrors) {
	if err := s.set(value); err != nil {
		problems.add(configError{where: from.text, path: s.path, text: err.Error()})
		return
	}
	s.origin = from
}

// deriveDefaults fills what follows from the relay's name.
func (c *loadedConfig) deriveDefaults() {
	for _, s := range c.settings {
		if s.derived != "" && s.origin.rank == rankDefault && c.Relay != "" {
			s.value.SetString(derive(s.derived, c.Relay))
		}
	}
}

// pickSecretSources treats a secret and its *_file as one setting: the source
// of the higher rank wins, both from the same source is a mistake.
func (c *loadedConfig) pickSecretSources(problems *configErrors) {
	for _, s := range c.settings {
		if !s.secret() || s.value.String() == "" {
			continue
		}
		file := c.setting(s.path + "_file")
		if file.value.String() == "" {
			continue
		}
		switch {
		case file.origin.rank > s.origin.rank:
			s.value.SetString("")
			s.origin = origin{text: "default"}
		case file.origin.rank < s.origin.rank:
			file.value.SetString("")
			file.origin = origin{text: "default"}
		default:
			problems.add(configError{where: file.origin.text, line: file.origin.line, excerpt: file.origin.excerpt, path: file.path, text: "set together with " + s.path + ": keep one of the two"})
		}
	}
}

// setting returns the row of the schema with that path, which must exist.
func (c *loadedConfig) setting(path string) *setting {
	i := slices.IndexFunc(c.settings, func(s *setting) bool { return s.path == path })
	if i < 0 {
		panic("no setting " + path)
	}
	return c.settings[i]
}
