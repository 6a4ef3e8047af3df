package routing

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// The cases of Debezium's own public tests of its Outbox Event Router that lie
// in the supported part, by the names of those tests. Key, value and headers
// are the bytes of StringConverter, of BinaryDataConverter for bytea, and of
// SimpleHeaderConverter.
func TestDebeziumCases(t *testing.T) {
	const id1, id2 = "da8d6de6-3b77-45ff-8f44-57db55a7a06c", "166080d9-3b0e-4a04-81fe-2058a7386f1f"
	unit := func(id, aggregateType, aggregateID, eventType, payload string, more ...column) *cdc.Row {
		return newRow(append([]column{
			{"id", oidText, id}, {"aggregatetype", oidText, aggregateType}, {"aggregateid", oidText, aggregateID},
			{"type", oidText, eventType}, {"payload", oidText, payload}, {"is_deleted", oidBool, nil},
		}, more...)...)
	}
	user := func(more ...column) *cdc.Row {
		return unit(id1, "User", "10711fa5", "UserCreated", "{}", more...)
	}
	changed := func(row *cdc.Row, name string, typeOID uint32, value string) *cdc.Row {
		i := row.Relation.Index(name)
		row.Relation.Columns[i].TypeOID, row.Values[i] = typeOID, []byte(value)
		return row
	}
	live := func(id, aggregateType, aggregateID, eventType string, payload any, more ...column) *cdc.Row {
		return newRow(append([]column{
			{"id", oidUUID, id}, {"aggregatetype", oidVarchar, aggregateType}, {"aggregateid", oidVarchar, aggregateID},
			{"type", oidVarchar, eventType}, {"payload", oidJSONB, payload},
		}, more...)...)
	}
	milliseconds := user(column{"event_timestamp", oidTimestamp, "2420-09-07 13:03:45.338"})
	for _, test := range []struct {
		name              string
		options           map[string]string
		row               *cdc.Row
		topic, key, value string
		headers           []cdc.Header
		timestamp         time.Time // zero: the commit time
	}{
		{name: "ER-09 canExtractTableFields", row: user(), topic: "outbox.event.User", key: "10711fa5", value: "{}", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-11 canSetMessageKey", options: map[string]string{"table.field.event.key": "type"}, row: user(), topic: "outbox.event.User", key: "UserCreated", value: "{}", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-14 canSetTimestampByUserDefinedConfiguration", options: map[string]string{"table.field.event.timestamp": "event_timestamp"}, row: milliseconds, topic: "outbox.event.User", key: "10711fa5", value: "{}", headers: []cdc.Header{header("id", id1)}, timestamp: time.UnixMilli(14222264625338).UTC()},
		{name: "ER-17 canRouteBasedOnField#3", options: map[string]string{"route.by.field": "aggregatetype"}, row: unit("ab720dd3-176d-40a6-96f3-6cf961d7df6a", "Address", "10711fa5", "AddressCreated", "{}"), topic: "outbox.event.Address", key: "10711fa5", value: "{}", headers: []cdc.Header{header("id", "ab720dd3-176d-40a6-96f3-6cf961d7df6a")}},
		{
			name: "ER-18 canConfigureEveryTableField",
			options: map[string]string{
				"table.field.event.id": "event_id", "table.field.event.key": "payload_id", "table.field.event.type": "event_type",
				"table.field.event.payload": "payload_body", "route.by.field": "payload_id",
			},
			row:   newRow(column{"event_id", oidText, id1}, column{"payload_id", oidText, "10711fa5"}, column{"event_type", oidText, "UserCreated"}, column{"payload_body", oidText, "{}"}),
			topic: "outbox.event.10711fa5", key: "10711fa5", value: "{}", headers: []cdc.Header{header("id", id1)},
		},
		{name: "ER-23 shouldNotSetSchemaVersionByDefault#1", options: map[string]string{"table.field.event.schema.version": "version"}, row: unit(id2, "User", "420b186d", "UserCreated", "{}", column{"version", oidInt4, "1"}), topic: "outbox.event.User", key: "420b186d", value: "{}", headers: []cdc.Header{header("id", id2)}},
		{name: "ER-35 canSetBinaryMessageKey", options: map[string]string{"table.field.event.key": "type"}, row: changed(user(), "type", oidBytea, `\x61205573657243726561746564`), topic: "outbox.event.User", key: "a UserCreated", value: "{}", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-36 canPassBinaryKey", row: changed(user(), "aggregateid", oidBytea, `\x612062696e617279206b6579`), topic: "outbox.event.User", key: "a binary key", value: "{}", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-37 canPassIntKey", row: changed(user(), "aggregateid", oidInt4, "54321"), topic: "outbox.event.User", key: "54321", value: "{}", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-38 canPassBinaryMessage", row: changed(user(), "payload", oidBytea, `\x612062696e617279206d657373616765`), topic: "outbox.event.User", key: "10711fa5", value: "a binary message", headers: []cdc.Header{header("id", id1)}},
		{name: "ER-47 shouldNotExpandJSONPayloadIfNotConfigured", row: changed(user(), "payload", oidText, `{"fullName": "John Doe", "rating": 4.9, "age": 42}`), topic: "outbox.event.User", key: "10711fa5", value: `{"fullName": "John Doe", "rating": 4.9, "age": 42}`, headers: []cdc.Header{header("id", id1)}},
		{name: "IT-01 shouldConsumeRecordsFromInsert", row: live("59a42efd-b015-44a9-9dde-cb36d9002425", "User", "10711fa5", "UserCreated", "{}"), topic: "outbox.event.User", key: "10711fa5", value: "{}", headers: []cdc.Header{header("id", "59a42efd-b015-44a9-9dde-cb36d9002425")}},
		{name: "IT-02 shouldSendEventTypeAsHeader", options: map[string]string{"table.fields.additional.placement": "type:header:eventType"}, row: live("59a42efd-b015-44a9-9dde-cb36d9002425", "User", "10711fa5", "UserCreated", `{"email": "gh@mefi.in"}`), topic: "outbox.event.User", key: "10711fa5", value: `{"email": "gh@mefi.in"}`, headers: []cdc.Header{header("id", "59a42efd-b015-44a9-9dde-cb36d9002425"), header("eventType", "UserCreated")}},
		{name: "IT-06 shouldConvertMicrosecondsTimestampToMilliseconds", options: map[string]string{"table.field.event.timestamp": "createdat"}, row: live("f9171eb6-19f3-4579-9206-0e179d2ebad7", "UserEmail", "7bdf2e9e", "UserUpdated", `{"email": "gh@mefi.in"}`, column{"createdat", oidTimestamp, "2019-03-24 20:52:59"}), topic: "outbox.event.UserEmail", key: "7bdf2e9e", value: `{"email": "gh@mefi.in"}`, headers: []cdc.Header{header("id", "f9171eb6-19f3-4579-9206-0e179d2ebad7")}, timestamp: time.UnixMilli(1553460779000).UTC()},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mustNew(t, Config{Format: FormatDebezium, Debezium: test.options}).Route(test.row)
			if err != nil {
				t.Fatal(err)
			}
			want := cdc.Record{
				Topic: cdc.Topic(test.topic), Key: []byte(test.key), Placement: []byte(test.key), Value: []byte(test.value),
				Headers: test.headers, Timestamp: test.timestamp, Position: test.row.Position,
			}
			if want.Timestamp.IsZero() {
				want.Timestamp = testCommitTime
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDebeziumTombstones(t *testing.T) {
	on := map[string]string{"route.tombstone.on.empty.payload": "true"}
	for _, test := range []struct {
		name    string
		options map[string]string
		typeOID uint32
		payload any
		want    []byte
	}{
		{"IT-09 empty text", on, oidVarchar, "", nil},
		{"blanks and control characters", on, oidText, " \t\r\n\x01", nil},
		{"a no-break space is not blank to Java", on, oidText, "\u00a0", []byte("\u00a0")},
		{"JSON null is not empty", on, oidJSONB, "null", []byte("null")},
		{"NULL", on, oidJSONB, nil, nil},
		{"an empty bytea is not empty", on, oidBytea, `\x`, []byte{}},
		{"NULL with the option off is null to StringConverter too", nil, oidJSONB, nil, nil},
		{"empty text with the option off", nil, oidText, "", []byte{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mustNew(t, Config{Format: FormatDebezium, Debezium: test.options}).Route(paymentRow(column{rolePayload, test.typeOID, test.payload}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Value); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]cdc.Header{header("id", testID)}, got.Headers); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDebeziumHeaderText(t *testing.T) {
	for _, test := range []struct {
		name     string
		typeOID  uint32
		modifier int32
		value    any
		want     []byte
	}{
		{"uuid", oidUUID, -1, testID, []byte(testID)},
		{"char is padded", oidBpchar, 8, "ab  ", []byte("ab  ")},
		{"enum", oidFirstUser + 7, -1, "label", []byte("label")},
		{"jsonb", oidJSONB, -1, `{"a": 1}`, []byte(`{"a": 1}`)},
		{"bigint", oidInt8, -1, "-42", []byte("-42")},
		{"true", oidBool, -1, "t", []byte("true")},
		{"false", oidBool, -1, "f", []byte("false")},
		{"date", oidDate, -1, "2024-02-29", []byte("19782")},
		{"timestamp", oidTimestamp, -1, "2024-02-29 10:00:00.123456", []byte("1709200800123456")},
		{"timestamp(3)", oidTimestamp, 3, "2024-02-29 10:00:00.123", []byte("1709200800123")},
		{"timestamp(6)", oidTimestamp, 6, "2024-02-29 10:00:00.123456", []byte("1709200800123456")},
		{"timestamptz", oidTimestamptz, -1, "2024-02-29 10:00:00.123456+00", []byte("2024-02-29T10:00:00.123456Z")},
		{"bytea", oidBytea, -1, `\x61`, []byte("YQ==")},
		{"NULL", oidText, -1, nil, nil},
		{"empty", oidText, -1, "", []byte{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			row := paymentRow(column{"extra", test.typeOID, test.value})
			row.Relation.Columns[row.Relation.Index("extra")].TypeModifier = test.modifier
			got, err := mustNew(t, Config{Format: FormatDebezium, PositionHeader: true, Debezium: map[string]string{optionPlacement: " extra : header : x , id:header"}}).Route(row)
			if err != nil {
				t.Fatal(err)
			}
			want := []cdc.Header{header("id", testID), {Key: "x", Value: test.want}, header("id", testID), header("cdc-relay-position", testPosition)}
			if diff := cmp.Diff(want, got.Headers); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDebeziumBadRows(t *testing.T) {
	for _, test := range []struct {
		name    string
		options map[string]string
		row     *cdc.Row
		want    string
	}{
		{"ER-12 key column missing", map[string]string{optionKey: "fakefield"}, paymentRow(), `no column "fakefield"`},
		{"placed column missing", map[string]string{optionPlacement: "nonExistingField:header"}, paymentRow(), `no column "nonExistingField"`},
		{"route column is no text", map[string]string{optionRouteBy: "n"}, paymentRow(column{"n", oidInt4, "1"}), `"n" cannot be route.by.field`},
		{"NULL in the route column", nil, paymentRow(column{roleAggregateType, oidText, nil}), "NULL"},
		{"timestamp column is a number", map[string]string{optionTimestamp: "n"}, paymentRow(column{"n", oidInt8, "1"}), `"n" cannot be table.field.event.timestamp`},
		{"time before 1970", map[string]string{optionTimestamp: roleCreatedAt}, paymentRow(column{roleCreatedAt, oidTimestamptz, "1969-12-31 23:59:59+00"}), "no record can carry"},
		{"placed type without conversion", map[string]string{optionPlacement: "n:header"}, paymentRow(column{"n", 701, "1"}), `"n" cannot be a header`},
		{"event id NULL", nil, paymentRow(column{roleID, oidUUID, nil}), "the event id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mustNew(t, Config{Format: FormatDebezium, Debezium: test.options}).Route(test.row)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v, want %s", got, err, test.want)
			}
		})
	}
	t.Run("a missing column may be ignored", func(t *testing.T) {
		for _, option := range []map[string]string{{optionMissing: "ignore"}, {optionErrorOnMissing: "false"}} {
			option[optionPlacement] = "nonExistingField:header"
			if _, err := mustNew(t, Config{Format: FormatDebezium, Debezium: option}).Route(paymentRow()); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDebeziumOptionsRefused(t *testing.T) {
	for _, test := range []struct{ option, value, want string }{
		{optionTopicRegex, " [[a-z]", "class within a class"},           // ER-30
		{optionPlacement, "type", "column:placement"},                   // ER-31
		{optionPlacement, "", "column:placement"},                       // ER-32
		{optionInvalidOp, "invalidOption", `is "invalidOption"`},        // ER-33
		{optionInvalidOp, "fatal", "not support"},                       // ER-08
		{optionPlacement, "type:envelope", "envelope is not supported"}, // ER-26
		{optionPlacement, "p:partition", "partition is not supported"},  // ER-29
		{optionPlacement, "type:nowhere:x", `"nowhere" is no placement`},
		{optionPlacement, "type:header:x:y", "column:placement"},
		{optionExpand, "true", "not support"}, // ER-43
		{optionEmptyTombstone, "yes", `is "yes"`},
		{optionID, "", "is empty"},
		{optionTopicReplace, "a$2", "group 2"},
		{optionTopicRegex, "(?=a)", "cannot be used"},
		{"table.field.event.ids", "id", "no option that this version knows"},
		{"tracing.operation.name", "x", "no option that this version knows"},
		{"field.name.adjustment.mode", "avro", "not support"},
		{"table.json.payload.null.behavior", "optional_bytes", "not support"},
	} {
		t.Run(test.option+"="+test.value, func(t *testing.T) {
			_, err := New(Config{Format: FormatDebezium, AllowedTopics: []string{"*"}, Debezium: map[string]string{test.option: test.value}})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.option) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	t.Run("templates have no effect", func(t *testing.T) {
		_, err := New(Config{Format: FormatDebezium, AllowedTopics: []string{"*"}, Topic: "a", Key: "b"})
		if err == nil || !strings.Contains(err.Error(), "routing.topic has no effect") || !strings.Contains(err.Error(), "routing.key has no effect") {
			t.Errorf("got %v", err)
		}
		mustNew(t, Config{Format: FormatDebezium, Topic: DefaultTopic, Key: DefaultKey})
	})
}
