package routing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names of the Outbox Event Router's options.
const (
	optionID              = "table.field.event.id"
	optionKey             = "table.field.event.key"
	optionType            = "table.field.event.type"
	optionPayload         = "table.field.event.payload"
	optionTimestamp       = "table.field.event.timestamp"
	optionSchemaVersion   = "table.field.event.schema.version"
	optionPlacement       = "table.fields.additional.placement"
	optionMissing         = "table.field.additional.missing"
	optionErrorOnMissing  = "table.fields.additional.error.on.missing"
	optionInvalidOp       = "table.op.invalid.behavior"
	optionExpand          = "table.expand.json.payload"
	optionRouteBy         = "route.by.field"
	optionTopicRegex      = "route.topic.regex"
	optionTopicReplace    = "route.topic.replacement"
	optionEmptyTombstone  = "route.tombstone.on.empty.payload"
	defaultTopicRegex     = `(?<routedByValue>.*)`
	defaultTopicReplace   = `outbox.event.${routedByValue}`
	placementHeader       = "header"
	placementEnvelope     = "envelope"
	placementPartition    = "partition"
	placementFormProblem  = "is no list of column:placement or column:placement:alias"
	placementFormSolution = "write a list such as type:header:eventType"
)

// debeziumOptions are the options that this version knows, by column names.
type debeziumOptions struct {
	id, key, payload, routeBy string
	timestamp                 string // empty: none
	placements                []columnPlacement
	ignoreMissing             bool // a placed column may be absent
	tombstoneOnEmpty          bool
	topic                     topicRoute
}

// columnPlacement is one item of table.fields.additional.placement.
type columnPlacement struct{ column, alias string }

// setDebezium reads the options; topic and key come from them alone.
func (r *Router) setDebezium(cfg Config) (problems []error) {
	if cfg.Topic != "" && cfg.Topic != DefaultTopic {
		problems = append(problems, invalid("routing.topic has no effect with routing.format debezium", "use routing.debezium "+optionTopicReplace+", and remove routing.topic"))
	}
	if cfg.Key != "" && cfg.Key != DefaultKey {
		problems = append(problems, invalid("routing.key has no effect with routing.format debezium", "use routing.debezium "+optionKey+", and remove routing.key"))
	}
	options, found := parseDebeziumOptions(cfg.Debezium, r.columns)
	r.debezium = options
	r.topic, r.key = columnOf(options.routeBy), columnOf(options.key)
	return append(problems, found...)
}

// optionReader takes options by name and collects what is wrong with them.
type optionReader struct {
	options  map[string]string
	known    map[string]bool
	problems []error
}

func (o *optionReader) problem(option, what, fix string) {
	o.problems = append(o.problems, invalid(fmt.Sprintf("routing.debezium: %s %s", option, what), fix))
}

// text returns an option that must not be empty.
func (o *optionReader) text(option, byDefault string) string {
	o.known[option] = true
	value, ok := o.options[option]
	if !ok {
		return byDefault
	}
	if value == "" {
		o.problem(option, "is empty", "give it a value, or remove it")
		return byDefault
	}
	return value
}

// choice returns an option that is one of a few words.
func (o *optionReader) choice(option, byDefault string, others ...string) string {
	value := o.text(option, byDefault)
	if value != byDefault && !slices.Contains(others, value) {
		o.problem(option, fmt.Sprintf("is %q", value), "use "+strings.Join(append([]string{byDefault}, others...), " or "))
		return byDefault
	}
	return value
}

// only accepts an option whose other values this version does not support.
func (o *optionReader) only(option, supported string) {
	if value := o.text(option, supported); value != supported {
		o.problem(option, fmt.Sprintf("is %q, which this version does not support", value), fmt.Sprintf("remove it, or set it to %q", supported))
	}
}

func parseDebeziumOptions(options, columns map[string]string) (debeziumOptions, []error) {
	o := &optionReader{options: options, known: map[string]bool{}}
	parsed := debeziumOptions{
		id:        o.text(optionID, columns[roleID]),
		key:       o.text(optionKey, columns[roleAggregateID]),
		payload:   o.text(optionPayload, columns[rolePayload]),
		routeBy:   o.text(optionRouteBy, columns[roleAggregateType]),
		timestamp: o.text(optionTimestamp, ""),
	}
	// Debezium reads neither without an envelope.
	o.text(optionType, "")
	o.text(optionSchemaVersion, "")
	parsed.tombstoneOnEmpty = o.choice(optionEmptyTombstone, "false", "true") == "true"
	parsed.ignoreMissing = o.choice(optionMissing, "error", "ignore") == "ignore" ||
		o.choice(optionErrorOnMissing, "true", "false") == "false"
	// The relay passes over updates and counts them; it never stops on one.
	if o.choice(optionInvalidOp, "warn", "error", "fatal") == "fatal" {
		o.problem(optionInvalidOp, "is \"fatal\", which this version does not support", "remove it: updates of the outbox are counted and not published")
	}
	o.only(optionExpand, "false")
	o.only("table.json.payload.null.behavior", "ignore")
	o.only("table.json.payload.empty.array.behavior", "ignore")
	o.only("field.name.adjustment.mode", "none")
	parsed.topic = o.topicRoute()
	parsed.placements = o.placements()
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if !o.known[option] {
			o.problem(option, "is no option that this version knows", "remove it; known are "+strings.Join(slices.Sorted(maps.Keys(o.known)), ", "))
		}
	}
	return parsed, o.problems
}

func (o *optionReader) topicRoute() topicRoute {
	pattern, err := compileJavaPattern(o.text(optionTopicRegex, defaultTopicRegex))
	if err != nil {
		o.problem(optionTopicRegex, err.Error(), "write the pattern without it")
		return topicRoute{}
	}
	replacement, err := parseJavaReplacement(o.text(optionTopicReplace, defaultTopicReplace), pattern)
	if err != nil {
		o.problem(optionTopicReplace, err.Error(), "write a Java replacement such as "+defaultTopicReplace)
	}
	return topicRoute{whole: pattern, replacement: replacement}
}

func (o *optionReader) placements() (placements []columnPlacement) {
	o.known[optionPlacement] = true
	list, ok := o.options[optionPlacement]
	if !ok {
		return nil
	}
	for item := range strings.SplitSeq(list, ",") {
		parts := strings.Split(strings.TrimSpace(item), ":")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
			o.problem(optionPlacement, fmt.Sprintf("%s: %q", placementFormProblem, item), placementFormSolution)
			continue
		}
		switch parts[1] {
		case placementHeader:
			placements = append(placements, columnPlacement{column: parts[0], alias: parts[len(parts)-1]})
			if len(parts) == 2 {
				placements[len(placements)-1].alias = parts[0]
			}
		case placementEnvelope, placementPartition:
			o.problem(optionPlacement, fmt.Sprintf("has %q; the placement %s is not supported in this version", item, parts[1]), "place the column as a header, or remove the item")
		default:
			o.problem(optionPlacement, fmt.Sprintf("has %q; %q is no placement", item, parts[1]), "use header")
		}
	}
	return placements
}

func (o *debeziumOptions) requiredColumns() []string {
	required := []string{o.id, o.routeBy, o.key, o.payload, o.timestamp}
	if !o.ignoreMissing {
		for _, placement := range o.placements {
			required = append(required, placement.column)
		}
	}
	return required
}
