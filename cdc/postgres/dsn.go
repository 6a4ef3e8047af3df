package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// dsnKeys are the keys that a connection string may have, and what they are when
// it lacks them. Every key that pgconn would otherwise take from a PG* variable
// or from a file of the home directory stands here, so that it never does.
var dsnKeys = map[string]string{
	"host": "", "port": "5432", "user": "", "password": "", "dbname": "", "passfile": "",
	"sslmode": "", "sslrootcert": "", "sslcert": "", "sslkey": "", "sslpassword": "", "sslsni": "1",
	"sslcertmode": "allow", "sslnegotiation": "", "channel_binding": "", "require_auth": "",
	"connect_timeout": "", "target_session_attrs": "any", "options": "", "application_name": "",
	"min_protocol_version": "", "max_protocol_version": "", "timezone": "",
}

// dsnIgnored are keys of libpq that change nothing for the relay.
var dsnIgnored = map[string]bool{
	"gssencmode": true, "keepalives": true, "keepalives_idle": true, "keepalives_interval": true, "keepalives_count": true,
	"tcp_user_timeout": true, "fallback_application_name": true, "client_encoding": true,
}

// pinnedParameters fix the text form of values for every session, whatever the
// role, the database or the connection string's options say: the server applies
// them after options. (PostgreSQL source, process_startup_options.)
var pinnedParameters = map[string]string{
	"client_encoding":     "UTF8",
	"DateStyle":           "ISO",
	"TimeZone":            "UTC",
	"IntervalStyle":       "postgres",
	"extra_float_digits":  "3",
	"bytea_output":        "hex",
	"client_min_messages": "warning",
}

const defaultConnectTimeout = 10 * time.Second

// connConfig reads the connection string anew and makes of it how to connect to
// exactly one host in exactly one way.
func (cfg *Config) connConfig() (*pgconn.Config, error) {
	dsn, err := cfg.DSN()
	if err != nil {
		return nil, &cdc.Problem{What: "the connection string cannot be read", Why: err.Error(), Fix: "check postgres.dsn_file and its permissions"}
	}
	settings, err := parseDSN(dsn)
	if err != nil {
		return nil, dsnProblem(err)
	}
	if err := settings.check(cfg.AllowInsecure); err != nil {
		return nil, dsnProblem(err)
	}
	return settings.config(cfg)
}

func dsnProblem(err error) *cdc.Problem {
	return &cdc.Problem{
		Treatment: cdc.Setup,
		What:      "the Postgres connection string is not usable",
		Why:       err.Error(),
		Fix:       "correct postgres.dsn, for example postgres://cdc_relay@db.example.com:5432/app?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem",
	}
}

// dsnSettings is a connection string taken apart.
type dsnSettings map[string]string

// parseDSN takes a connection string apart, in its URL or its keyword form.
// Errors name keys and never values, which may hold the password.
func parseDSN(dsn string) (dsnSettings, error) {
	dsn = strings.TrimSpace(dsn)
	if strings.IndexByte(dsn, 0) >= 0 {
		return nil, errors.New("it contains a NUL byte")
	}
	parse := parseKeywords
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		parse = parseURL
	}
	settings, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	for key, fallback := range dsnKeys {
		if settings[key] == "" {
			settings[key] = fallback
		}
	}
	return settings, nil
}

func (s dsnSettings) set(key, value string) error {
	if key == "database" {
		key = "dbname"
	}
	if dsnIgnored[key] {
		return nil
	}
	if _, known := dsnKeys[key]; !known {
		if key == "service" || key == "servicefile" {
			return errors.New("it names a service: write host, port, dbname and user instead")
		}
		return unknownKey(key)
	}
	s[key] = value
	return nil
}

// unknownKey names a key that looks like a slip of a known one; anything else
// may be a piece of a password that ran into the syntax.
func unknownKey(key string) error {
	for known := range dsnKeys {
		if len(key) >= 3 && strings.HasPrefix(known, key[:3]) {
			return fmt.Errorf("it has the unknown key %q", key)
		}
	}
	return errors.New("it has an unknown key (parameters of the session go into options='-c name=value')")
}

func parseURL(dsn string) (dsnSettings, error) {
	parsed, err := url.Parse(dsn)
	if err != nil {
		return nil, errors.New("it is not a valid URL (characters such as / @ : # in a password must be percent-encoded)")
	}
	s := dsnSettings{"host": parsed.Hostname(), "port": parsed.Port(), "dbname": strings.TrimPrefix(parsed.Path, "/")}
	if strings.Contains(parsed.Host, ",") {
		s["host"] = parsed.Host
	}
	if parsed.User != nil {
		s["user"] = parsed.User.Username()
		s["password"], _ = parsed.User.Password()
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return nil, errors.New("its query is not valid")
	}
	for key, values := range query {
		if key == "ssl" && values[len(values)-1] == "true" {
			key, values = "sslmode", []string{"require"}
		}
		if err := s.set(key, values[len(values)-1]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// parseKeywords reads key=value and key='value with \' escapes'.
func parseKeywords(dsn string) (dsnSettings, error) {
	s := dsnSettings{}
	const space = " \t\n\r\v\f"
	for rest := strings.TrimLeft(dsn, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.TrimRight(key, space)
		if !ok || key == "" || strings.ContainsAny(key, space) {
			return nil, errors.New("it is neither a postgres:// URL nor key=value pairs")
		}
		value, after, err := keywordValue(strings.TrimLeft(after, space))
		if err != nil {
			return nil, err
		}
		if err := s.set(key, value); err != nil {
			return nil, err
		}
		rest = after
	}
	return s, nil
}

func keywordValue(text string) (value, rest string, err error) {
	quoted := strings.HasPrefix(text, "'")
	if quoted {
		text = text[1:]
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\':
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
			continue
		case quoted && c == '\'':
			return b.String(), text[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return b.String(), text[i:], nil
		}
		b.WriteByte(c)
	}
	if quoted {
		return "", "", errors.New("it has a quoted value without an end")
	}
	return b.String(), "", nil
}

// check refuses what names no single server, and weak TLS; it also settles the
// modes that would silently fall back to plain text.
func (s dsnSettings) check(allowInsecure bool) error {
	var errs []error
	host := s["host"]
	switch {
	case host == "":
		errs = append(errs, errors.New("it names no host (PGHOST is not used)"))
	case strings.Contains(host, ","):
		errs = append(errs, errors.New("it names several hosts: the slot is on one server, name that one or an address that follows the primary"))
	}
	if s["user"] == "" {
		errs = append(errs, errors.New("it names no user (PGUSER is not used)"))
	}
	if s["dbname"] == "" {
		s["dbname"] = s["user"]
	}
	if port, err := strconv.ParseUint(s["port"], 10, 16); err != nil || port == 0 {
		errs = append(errs, errors.New("its port is not a number from 1 to 65535"))
	}
	switch s["target_session_attrs"] {
	case "any", "read-write", "primary":
		s["target_session_attrs"] = "any" // a server in recovery is found by looking
	default:
		errs = append(errs, errors.New("its target_session_attrs asks for a standby: the slot is streamed from the primary"))
	}
	errs = append(errs, s.checkTLS(allowInsecure))
	return errors.Join(errs...)
}

func (s dsnSettings) checkTLS(allowInsecure bool) error {
	mode := s["sslmode"]
	if s["sslrootcert"] == "system" {
		mode = "verify-full"
	}
	switch mode {
	case "", "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		return errors.New("its sslmode is none of disable, allow, prefer, require, verify-ca, verify-full")
	}
	opportunistic := mode == "" || mode == "allow" || mode == "prefer"
	switch {
	case s.local():
		if opportunistic {
			mode = "disable" // nobody is in between
		}
	case mode == "verify-full":
	case !allowInsecure:
		return fmt.Errorf("sslmode=%s lets anybody in between read along or answer as the server: use sslmode=verify-full (and sslrootcert), or allow insecure connections explicitly", orDefault(mode, "prefer"))
	case mode == "allow":
		mode = "disable"
	case opportunistic:
		mode = "require" // no silent way back to plain text
	}
	s["sslmode"] = mode
	return nil
}

// local says whether the connection never leaves this host.
func (s dsnSettings) local() bool {
	host := s["host"]
	if strings.HasPrefix(host, "/") || strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// config makes pgconn's configuration from settings that name everything, so
// that the environment has nothing left to add.
func (s dsnSettings) config(cfg *Config) (*pgconn.Config, error) {
	timeout := cfg.ConnectTimeout
	if seconds, err := strconv.Atoi(s["connect_timeout"]); err == nil && seconds > 0 {
		timeout = time.Duration(seconds) * time.Second
	}
	var b strings.Builder
	for key := range dsnKeys {
		value := s[key]
		if key == "connect_timeout" {
			value = "10" // bounded by ConnectTimeout below
		}
		fmt.Fprintf(&b, "%s='%s' ", key, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
	}
	config, err := pgconn.ParseConfig(b.String())
	if err != nil {
		return nil, s.parseProblem(err)
	}
	config.RuntimeParams = map[string]string{"application_name": orDefault(cfg.ApplicationName, orDefault(s["application_name"], defaultApplicationName))}
	for key, value := range pinnedParameters {
		config.RuntimeParams[key] = value
	}
	if s["options"] != "" {
		config.RuntimeParams["options"] = s["options"]
	}
	config.Fallbacks = nil
	config.ConnectTimeout = timeout
	config.DialFunc = cfg.dial
	return config, nil
}

// parseProblem words an error of pgconn's own parser: a file that cannot be
// read, or a service that the environment forces upon it.
func (s dsnSettings) parseProblem(err error) error {
	if os.Getenv("PGSERVICE") != "" {
		return &cdc.Problem{Treatment: cdc.Setup, What: "PGSERVICE is set and cannot be ignored", Why: "the driver reads its service file in any case", Fix: "start cdc-relay without PGSERVICE"}
	}
	why := "a value is not valid"
	if inner := errors.Unwrap(err); inner != nil {
		why = s.scrub(inner.Error())
	}
	return dsnProblem(errors.New(why))
}

// scrub removes the secrets from a text that came from elsewhere.
func (s dsnSettings) scrub(text string) string {
	for _, key := range []string{"password", "sslpassword"} {
		if s[key] != "" {
			text = strings.ReplaceAll(text, s[key], "***")
		}
	}
	return text
}
