package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/sql"
)

// relayRole makes the one role that a relay needs.
const relayRole = `-- It needs no right on any table. Know that REPLICATION can decode every table of
-- the database: treat its password like a copy of the data. Set it with \password.
DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'cdc_relay') THEN
        CREATE ROLE cdc_relay LOGIN REPLICATION;
    END IF;
    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO cdc_relay', pg_catalog.current_database());
END
$role$;`

// printInit prints what has to be run, by whom, in the order that is safe. The
// slot is not among it: a slot that init did not make has no position record,
// and init refuses it.
func printInit(w io.Writer, c *loadedConfig, options initOptions) error {
	roles, rolesTitle := relayRole, "the relay's role, without a password"
	if options.withTable {
		table, err := sql.Outbox(c.Postgres.Table)
		if err != nil {
			return err
		}
		owners, err := sql.Roles(c.Postgres.Table)
		if err != nil {
			return err
		}
		roles, rolesTitle = table+"\n"+owners, "the outbox table, and roles without passwords"
	}
	publication, err := sql.Publication(c.Postgres.Publication, c.Postgres.Table)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "-- What relay %q needs, in this order. Nothing was changed.\n", c.Relay)
	section := func(n int, who, what, text string) {
		fmt.Fprintf(w, "\n-- %d of 4, run as %s: %s\n%s\n", n, who, what, strings.TrimSpace(text))
	}
	section(1, "a superuser", rolesTitle, withoutMarkers(roles))
	section(2, "the table owner", "the publication", withoutMarkers(publication))
	section(3, "a Kafka administrator", "topics and rights", kafkaScript(c))
	last := "the slot and the first position record, which have to agree"
	if cdc.Mode(c.Delivery) == cdc.AtLeastOnce {
		last = "the slot, which alone says where to go on"
	}
	section(4, "the relay's role", last,
		"-- cdc-relay init --apply   with the same configuration; what exists is left as it is")
	return nil
}

// withoutMarkers drops the lines that only a migration tool reads.
func withoutMarkers(text string) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "-- +goose") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// kafkaScript has Kafka's own tools as SQL comments, so that the whole output
// can be given to psql.
func kafkaScript(c *loadedConfig) string {
	k := &c.Kafka
	server := "--bootstrap-server " + shellQuote(strings.Join(k.Brokers, ","))
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "-- "+format+"\n", args...) }
	if cdc.Mode(c.Delivery) == cdc.ExactlyOnce {
		line("kafka-topics.sh %s --create --if-not-exists --topic %s --partitions 1 --replication-factor %d --config cleanup.policy=compact", server, shellQuote(k.PositionTopic), k.Replication)
	}
	for _, topic := range exactTopics(c) {
		line("kafka-topics.sh %s --create --if-not-exists --topic %s --partitions %d --replication-factor %d", server, shellQuote(string(topic)), k.Partitions, k.Replication)
	}
	if k.SASL.Username == "" {
		return b.String()
	}
	acl := "kafka-acls.sh " + server + " --add --allow-principal " + shellQuote("User:"+k.SASL.Username)
	// A start in mode at-least-once looks for the topic too: where it exists, it
	// writes the mode there, with the ids below.
	line("%s --operation Read --operation Write --operation Describe --operation DescribeConfigs --topic %s", acl, shellQuote(k.PositionTopic))
	for _, topic := range c.Routing.AllowedTopics {
		pattern := ""
		if name, ok := strings.CutSuffix(topic, "*"); ok {
			topic, pattern = name, " --resource-pattern-type prefixed"
		}
		line("%s --operation Write --operation Describe --operation DescribeConfigs --topic %s%s", acl, shellQuote(topic), pattern)
	}
	for i := range k.TransactionRing {
		line("%s --operation Write --operation Describe --transactional-id %s", acl, shellQuote(fmt.Sprintf("%s.%d", k.TransactionalIDPrefix, i)))
	}
	return b.String()
}

func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
