package main

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The forms that names must have.
var (
	relayName   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,55}$`) // <relay_>_outbox is a slot's name of at most 63
	slotName    = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)          // ReplicationSlotValidateName
	topicName   = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	tableName   = regexp.MustCompile(`^[^.\s]+\.[^.\s]+$`)
	columnRoles = []string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers", "created_at"}
)

// validate checks what one value cannot tell: presence, form and relations.
func (c *loadedConfig) validate(problems *configErrors) {
	v := &validator{c: c, problems: problems}
	v.required("relay", c.Relay == "", "the relay needs a name")
	v.require("relay", c.Relay == "" || relayName.MatchString(c.Relay), fmt.Sprintf("%q is no relay name: want 1 to 56 of a-z, 0-9, _ and -, beginning with a letter or digit", c.Relay))
	v.postgres()
	v.kafka()
	v.derived("postgres.slot", slotName, "is no slot name: Postgres wants 1 to 63 of a-z, 0-9 and _")
	v.derived("kafka.position_topic", topicName, "is no topic name: Kafka wants 1 to 249 of a-z, A-Z, 0-9, ., _ and -")
	v.derived("parked_topic", topicName, "is no topic name: Kafka wants 1 to 249 of a-z, A-Z, 0-9, ., _ and -")
	v.require("parked_topic", c.ParkedTopic != c.Kafka.PositionTopic, "is the position topic, which holds nothing but positions")
	v.required("routing.allowed_topics", len(c.Routing.AllowedTopics) == 0, "rows may go nowhere: list the topics, exact or prefix*")
	if c.Routing.Format != "debezium" {
		v.require("routing.position_header", !c.Routing.PositionHeader, "only for format debezium; every other format has the header anyway")
		v.require("routing.debezium", len(c.Routing.Debezium) == 0, "only for format debezium")
	}
	v.admin()
	if len(problems.list) == 0 {
		v.parts()
	}
}

type validator struct {
	c        *loadedConfig
	problems *configErrors
}

// require adds a problem unless ok, at the place where the setting was set. A
// setting that already has a problem, or whose group has, gets no second one.
func (v *validator) require(path string, ok bool, text string) {
	if ok || slices.ContainsFunc(v.problems.list, func(p configError) bool {
		return p.path == path || p.path != "" && strings.HasPrefix(path, p.path+".")
	}) {
		return
	}
	s := v.c.setting(path)
	p := configError{path: path, text: text, line: s.origin.line, excerpt: s.origin.excerpt}
	if s.origin.rank > rankDefault {
		p.where = s.origin.text
	}
	v.problems.add(p)
}

// required adds a problem when a setting is missing and says how to set it.
func (v *validator) required(path string, missing bool, text string) {
	v.require(path, !missing, fmt.Sprintf("not set: %s (key %s, environment variable %s, or --set %s=...)", text, path, v.c.setting(path).env(), path))
}

// derived checks the form of a name, unless it follows from a relay name that
// has a problem itself.
func (v *validator) derived(path string, form *regexp.Regexp, text string) {
	s := v.c.setting(path)
	if s.origin.rank > rankDefault || relayName.MatchString(v.c.Relay) {
		v.require(path, form.MatchString(s.value.String()), fmt.Sprintf("%q %s", s.value.String(), text))
	}
}

func (v *validator) postgres() {
	p := &v.c.Postgres
	dsnMissing := p.DSN == "" && p.DSNFile == ""
	v.require("postgres.dsn_file", !dsnMissing, "not set: the relay needs a connection string (key postgres.dsn_file or postgres.dsn, or environment variable CDC_RELAY_POSTGRES_DSN_FILE or CDC_RELAY_POSTGRES_DSN)")
	v.require("postgres.publication", len(p.Publication) <= 63, "longer than the 63 bytes that Postgres allows")
	v.require("postgres.table", tableName.MatchString(p.Table), fmt.Sprintf("%q is not schema.table%s", p.Table, tableHint(p.Table)))
	for role, column := range p.Columns {
		if !slices.Contains(columnRoles, role) {
			v.require("postgres.columns", false, fmt.Sprintf("%q is no column role: want %s%s", role, strings.Join(columnRoles, ", "), suggestion(role, columnRoles)))
		}
		v.require("postgres.columns", column != "", fmt.Sprintf("role %s has no column name", role))
	}
}

func tableHint(table string) string {
	if table == "" || strings.ContainsAny(table, ". ") {
		return ""
	}
	return "; did you mean public." + table + "?"
}

func (v *validator) kafka() {
	k := &v.c.Kafka
	v.required("kafka.brokers", len(k.Brokers) == 0, "the relay needs at least one broker as host:port")
	for _, broker := range k.Brokers {
		v.require("kafka.brokers", validAddress(broker, false), fmt.Sprintf("%q is not host:port", broker))
	}
	v.require("kafka.tls.cert_file", k.TLS.CertFile != "" || k.TLS.KeyFile == "", "not set, although tls.key_file is: the two belong together")
	v.require("kafka.tls.key_file", k.TLS.KeyFile != "" || k.TLS.CertFile == "", "not set, although tls.cert_file is: the two belong together")
	sasl := &k.SASL
	password := sasl.Password != "" || sasl.PasswordFile != ""
	if sasl.Mechanism == "" {
		v.require("kafka.sasl.mechanism", sasl.Username == "" && !password, "not set, although user or password is: want SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")
		return
	}
	v.required("kafka.sasl.username", sasl.Username == "", "the mechanism needs a user")
	v.required("kafka.sasl.password_file", !password, "the mechanism needs a password")
	tls := k.TLS.Enabled || k.TLS.CAFile != "" || k.TLS.CertFile != ""
	v.require("kafka.sasl.mechanism", sasl.Mechanism != "PLAIN" || tls, "PLAIN sends the password readable and is refused without tls: use SCRAM-SHA-512, or set kafka.tls.enabled: true")
}

func (v *validator) admin() {
	a := &v.c.Admin
	v.require("admin.listen", validAddress(a.Listen, true), fmt.Sprintf("%q is no address: want host:port, such as 127.0.0.1:9790 or :9790", a.Listen))
	v.require("admin.pprof", !a.Pprof || loopback(a.Listen), "only with admin.listen on loopback: profiles show memory")
}

// parts lets the constructors judge what only they know; it runs when the
// values are otherwise fine, so that no problem is told twice.
func (v *validator) parts() {
	_, err := newRouter(v.c)
	for _, problem := range unjoin(err) {
		v.problems.add(configError{text: problem.Error()})
	}
}

// unjoin returns the parts of a joined error.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, unjoin(e)...)
		}
		return all
	}
	return []error{err}
}

func validAddress(address string, emptyHost bool) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || (host == "" && !emptyHost) {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// loopback says whether the address is bound to this host only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
