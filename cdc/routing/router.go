package routing

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

const (
	// maxPlans bounds the compiled relations: a stream makes a new one per
	// relation message.
	maxPlans = 64
	// maxTopics bounds the topics known to be allowed: rows choose them.
	maxTopics = 10000
)

// Router implements cdc.Router. It is made by New and belongs to one
// goroutine: it caches per relation, topic and transaction.
type Router struct {
	format   string
	source   []byte
	columns  map[string]string // role -> column name, every role present
	explicit map[string]bool   // roles that the configuration gives another column
	topic    template          // by column names; unused by format debezium
	key      template          // by column names
	debezium debeziumOptions
	allowed  allowList
	stamp    bool // the record carries the commit time
	position bool // format debezium sends the position header too

	parkedTopic cdc.Topic

	// encode makes value and headers. It takes no *cdc.Record, which would then
	// be allocated for each row.
	encode func(p *plan, row *cdc.Row) (content, error)

	plan       *plan // of the last row
	plans      map[*cdc.Relation]*plan
	topics     map[string]cdc.Topic // what names the topic -> the topic, allowed ones only
	scratch    []byte
	lent       lent
	names      headerNames
	commitTime commitTimeText
	createdAt  columnTimes
	eventTimes timePrinter
}

// content is what the formats differ in.
type content struct {
	value   []byte
	headers []cdc.Header
}

var (
	_ cdc.Router = (*Router)(nil)
	_ cdc.Parker = (*Router)(nil).Park
)

// New checks the configuration and returns all its problems at once.
func New(cfg Config) (*Router, error) {
	r := &Router{
		format:   cfg.Format,
		source:   []byte(cfg.Source),
		stamp:    cfg.Timestamp != timestampProduce,
		position: cfg.PositionHeader, parkedTopic: cfg.ParkedTopic,
		plans:  map[*cdc.Relation]*plan{},
		topics: map[string]cdc.Topic{},
		names:  headerNames{},
	}
	if r.format == "" {
		r.format = FormatCloudEvents
	}
	var problems, found []error
	r.columns, r.explicit, found = columnNames(cfg.Columns)
	problems = append(problems, found...)
	r.allowed, found = newAllowList(cfg.AllowedTopics, cfg.ReservedTopics)
	problems = append(problems, found...)
	if cfg.Timestamp != "" && cfg.Timestamp != timestampCommit && cfg.Timestamp != timestampProduce {
		problems = append(problems, invalid(fmt.Sprintf("routing.timestamp is %q", cfg.Timestamp), "use commit or produce"))
	}
	problems = append(problems, r.setFormat(cfg)...)
	if r.format == FormatDebezium {
		problems = append(problems, r.setDebezium(cfg)...)
	} else {
		problems = append(problems, r.setTemplates(cfg)...)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return r, nil
}

// columnNames completes the configured mapping of roles to column names.
func columnNames(configured map[string]string) (names map[string]string, explicit map[string]bool, problems []error) {
	names, explicit = map[string]string{}, map[string]bool{}
	for _, role := range roles() {
		names[role] = role
	}
	for _, role := range slices.Sorted(maps.Keys(configured)) {
		name := configured[role]
		switch {
		case names[role] == "":
			problems = append(problems, invalid(fmt.Sprintf("postgres.columns: %q is no role", role), "use "+strings.Join(roles(), ", ")))
		case name == "":
			problems = append(problems, invalid(fmt.Sprintf("postgres.columns: %s has no column name", role), "name the column, or remove the entry"))
		default:
			// An entry that repeats the default asks for nothing.
			names[role], explicit[role] = name, name != role
		}
	}
	return names, explicit, problems
}

// setFormat chooses the encoding.
func (r *Router) setFormat(cfg Config) (problems []error) {
	switch r.format {
	case FormatCloudEvents:
		r.encode = r.encodeCloudEvent
	case FormatCloudEventsStructured:
		r.encode = r.encodeStructured
	case FormatRaw:
		r.encode = r.encodeRaw
	case FormatDebezium:
		r.encode = r.encodeDebezium
	default:
		return []error{invalid(fmt.Sprintf("routing.format is %q", r.format), "use cloudevents, cloudevents-structured, debezium or raw")}
	}
	if r.isCloudEvents() {
		if _, err := url.Parse(cfg.Source); cfg.Source == "" || err != nil || strings.ContainsAny(cfg.Source, " \t\r\n") {
			problems = append(problems, invalid(fmt.Sprintf("routing.source is %q; CloudEvents want a URI reference", cfg.Source), "name what publishes the events, such as /payments"))
		}
	}
	if r.format != FormatDebezium && len(cfg.Debezium) > 0 {
		problems = append(problems, invalid(fmt.Sprintf("routing.debezium has no effect with routing.format %s", r.format), "set routing.format to debezium, or remove the options"))
	}
	if r.format != FormatDebezium && cfg.PositionHeader {
		problems = append(problems, invalid(fmt.Sprintf("position_header has no effect with routing.format %s, which always sends it", r.format), "remove it"))
	}
	return problems
}

func (r *Router) isCloudEvents() bool {
	return r.format == FormatCloudEvents || r.format == FormatCloudEventsStructured
}

// setTemplates reads topic and key of every format but debezium.
func (r *Router) setTemplates(cfg Config) (problems []error) {
	read := func(setting, text, byDefault string) template {
		if text == "" {
			text = byDefault
		}
		t, err := parseTemplate(text)
		if err != nil {
			problems = append(problems, invalid(fmt.Sprintf("%s: %v", setting, err), "name columns in braces, such as {aggregatetype}"))
		}
		return t.named(r.columns)
	}
	r.topic = read("routing.topic", cfg.Topic, DefaultTopic)
	r.key = read("routing.key", cfg.Key, DefaultKey)
	if topic, ok := r.topic.constant(); ok && len(cfg.AllowedTopics) > 0 {
		if why, fix := r.allowed.refusal(topic); why != "" {
			problems = append(problems, invalid(fmt.Sprintf("routing.topic is always %q, %s", topic, why), fix))
		}
	}
	return problems
}

// IDColumn is the column with the event id: what Row.EventID has to hold.
func (r *Router) IDColumn() string {
	if r.format == FormatDebezium {
		return r.debezium.id
	}
	return r.columns[roleID]
}

// RequiredColumns are the columns without which every row is a bad row, in a
// stable order without repeats.
func (r *Router) RequiredColumns() []string {
	var required []string
	need := func(names ...string) {
		for _, name := range names {
			if name != "" && !slices.Contains(required, name) {
				required = append(required, name)
			}
		}
	}
	if r.format == FormatDebezium {
		need(r.debezium.requiredColumns()...)
		return required
	}
	need(r.IDColumn())
	for _, part := range slices.Concat(r.topic.parts, r.key.parts) {
		need(part.column)
	}
	if r.isCloudEvents() {
		need(r.columns[roleType])
	}
	need(r.columns[rolePayload])
	for _, role := range roles() {
		if r.explicit[role] {
			need(r.columns[role])
		}
	}
	return required
}

// Route implements cdc.Router.
func (r *Router) Route(row *cdc.Row) (cdc.Record, error) {
	p, err := r.planFor(row)
	if err != nil {
		return cdc.Record{}, err
	}
	r.lent.reset()
	record := cdc.Record{Position: row.Position}
	if record.Timestamp, err = r.timestampOf(p, row); err != nil {
		return cdc.Record{}, err
	}
	if record.Topic, err = r.topicOf(p, row); err != nil {
		return cdc.Record{}, err
	}
	if record.Key, err = r.keyOf(p, row); err != nil {
		return cdc.Record{}, err
	}
	if record.Placement, err = placement(p, row, record.Key); err != nil {
		return cdc.Record{}, err
	}
	made, err := r.encode(p, row)
	if err != nil {
		return cdc.Record{}, err
	}
	record.Value, record.Headers = made.value, made.headers
	return record, nil
}

// timestampOf returns the record's timestamp: the commit time, or that of the
// column that format debezium names; zero is the time of producing.
func (r *Router) timestampOf(p *plan, row *cdc.Row) (time.Time, error) {
	if p.timestamp >= 0 && row.Values[p.timestamp] != nil {
		t, err := parseColumnTime(row.Values[p.timestamp])
		if err != nil || t.Unix() < 0 {
			return time.Time{}, badRow(row, fmt.Sprintf("has in column %q the time %s, which no record can carry", p.columnName(p.timestamp), quoted(row.Values[p.timestamp])), "write a time since 1970, or remove table.field.event.timestamp")
		}
		return t, nil
	}
	if r.stamp {
		return row.CommitTime, nil
	}
	return time.Time{}, nil
}

// topicOf returns the row's topic if rows may go there. The text that names
// the topic is the rendered template, or what Debezium's router would route by.
func (r *Router) topicOf(p *plan, row *cdc.Row) (cdc.Topic, error) {
	r.scratch = r.scratch[:0]
	for _, part := range p.topic {
		if part.column < 0 {
			r.scratch = append(r.scratch, part.literal...)
			continue
		}
		value := row.Values[part.column]
		if value == nil {
			return "", badRow(row, fmt.Sprintf("has NULL in column %q, which names the topic", p.columnName(part.column)), "write the value, or change routing.topic")
		}
		r.scratch = append(r.scratch, value...)
	}
	if topic, ok := r.topics[string(r.scratch)]; ok {
		return topic, nil
	}
	name := string(r.scratch)
	if r.format == FormatDebezium {
		name = r.debezium.topic.route(name)
	}
	if why, fix := r.allowed.refusal(name); why != "" {
		return "", badRow(row, fmt.Sprintf("routes to topic %s, %s", quoted(name), why), fix)
	}
	if len(r.topics) >= maxTopics {
		clear(r.topics)
	}
	r.topics[string(r.scratch)] = cdc.Topic(name)
	return cdc.Topic(name), nil
}

// keyOf returns the serialized key; nil when the key is one column that is
// NULL. Of several columns none may be NULL: which keys were then equal?
func (r *Router) keyOf(p *plan, row *cdc.Row) ([]byte, error) {
	if len(p.key) == 1 && p.key[0].column >= 0 {
		return r.keyColumn(p, row, p.key[0].column)
	}
	key := []byte{}
	for _, part := range p.key {
		if part.column < 0 {
			key = append(key, part.literal...)
			continue
		}
		value, err := r.keyColumn(p, row, part.column)
		if err != nil {
			return nil, err
		}
		if value == nil {
			return nil, badRow(row, fmt.Sprintf("has NULL in column %q, a part of the key", p.columnName(part.column)), "write the value, or change routing.key")
		}
		key = append(key, value...)
	}
	return key, nil
}

func (r *Router) keyColumn(p *plan, row *cdc.Row, column int) ([]byte, error) {
	if r.format == FormatDebezium {
		return p.connectValue(row, column)
	}
	return p.rawValue(row, column)
}

// placement returns the bytes that are hashed to place the record.
func placement(p *plan, row *cdc.Row, key []byte) ([]byte, error) {
	switch {
	case key != nil:
		return key, nil
	case p.aggregateID >= 0 && row.Values[p.aggregateID] != nil:
		return row.Values[p.aggregateID], nil
	case row.Values[p.id] != nil:
		return row.Values[p.id], nil
	default:
		return nil, badRow(row, "has neither key, aggregate id nor event id to place it by", "write the event id")
	}
}
